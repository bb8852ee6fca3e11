package weir.access_test

import data.weir.access

ask(target, groups) := {"event": {"kind": "open"}, "target": {"name": target}, "identity": {"groups": groups}}

test_analysts_open_orders if access.allow with input as ask("orders", ["analysts"])

test_others_do_not if not access.allow with input as ask("orders", ["visitors"])

test_analysts_open_nothing_else if not access.allow with input as ask("billing", ["analysts"])
