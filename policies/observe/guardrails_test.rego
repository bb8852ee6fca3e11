package weir.guardrails_test

import data.weir.guardrails

drop := {"event": {"kind": "command", "command": {"action": "drop", "effects": ["ddl"], "resources": [], "where": true}}}

test_records_in_full if guardrails.record == "full" with input as drop

test_refuses_nothing if not guardrails.deny with input as drop
