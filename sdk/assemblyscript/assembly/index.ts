/**
 * Write Weir plugins in AssemblyScript.
 *
 *	import { Event, Kind, Manifest, Plugin, register } from "./weir";
 *	export * from "./weir/exports";
 *
 *	class NoDdl extends Plugin {
 *	  manifest(): Manifest {
 *	    return new Manifest("no-ddl", "1.0.0").subscribe([Kind.Command]);
 *	  }
 *	  onCommand(e: Event): void {
 *	    if (e.hasEffect("ddl")) e.deny("no-ddl", "the schema is not changed here", "write a migration");
 *	  }
 *	}
 *
 *	register(new NoDdl());
 *
 * The contract behind it is sdk/ABI.md. An event, and the values that it gives, end with the handler. An instance serves
 * one session after the other: keep nothing of an event.
 */
export { Class, Column, Event, Resource, Values } from "./event";
export { count, found, kvGet, kvIncr, kvPut, kvRemove, Level, log, now, observe } from "./host";
export { parse, Value } from "./json";
export { Kind, Manifest } from "./manifest";
export { Plugin, register } from "./plugin";
