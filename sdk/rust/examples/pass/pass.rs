//! pass sees everything and does nothing: what is left is the price of a call.
#![no_std]
use weir::{json::Value, Kind, Manifest, Plugin, Subscription};

struct Pass;

impl Plugin for Pass {
    const MANIFEST: Manifest = Manifest {
        name: "pass",
        version: "1.0.0",
        subscribe: &[Subscription { kinds: Kind::ALL, columns: &["*"], ..Subscription::NONE }],
        ..Manifest::DEFAULT
    };
    fn configure(_: Value<'_>) -> Result<Self, &'static str> {
        Ok(Pass)
    }
}

weir::plugin!(Pass);
weir::no_std!();
