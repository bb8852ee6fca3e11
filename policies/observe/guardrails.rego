# METADATA
# title: Observe
# description: >
#   Refuses nothing and hides nothing; everything that passes is recorded in full. The profile to begin with: run it
#   for a week, then see with `weir policy backtest` what a stricter one would have refused.
package weir.guardrails

# METADATA
# title: Everything is recorded in full
# description: Whatever the target's own level says.
record := "full"
