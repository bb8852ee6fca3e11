//! record adds a finding to the record for each thing that a command touches, and counts the rows that come back.
#![no_std]
use weir::{json::Value, Event, Kind, Manifest, Metric, Plugin, Subscription};

const RESOURCES: u32 = 1;
const ROWS: u32 = 2;

struct Record;

impl Plugin for Record {
    const MANIFEST: Manifest = Manifest {
        name: "record",
        version: "1.0.0",
        subscribe: &[Subscription { kinds: &[Kind::Command, Kind::Rows], ..Subscription::NONE }],
        metrics: &[Metric::Counter(RESOURCES, "resources"), Metric::Histogram(ROWS, "batch_rows")],
        ..Manifest::DEFAULT
    };

    fn configure(_: Value<'_>) -> Result<Self, &'static str> {
        Ok(Record)
    }

    fn on_command(&mut self, e: &mut Event<'_>) {
        let mut n = 0;
        for r in e.resources() {
            weir::found(r.kind, &[r.name, b": ", r.uses]);
            n += 1;
        }
        if n > 0 {
            weir::count(RESOURCES, n);
        }
    }

    fn on_rows(&mut self, e: &mut Event<'_>) {
        weir::observe(ROWS, e.rows as f64);
    }
}

weir::plugin!(Record);
weir::no_std!();
