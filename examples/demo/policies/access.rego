# METADATA
# title: Who may open the demo's targets
package weir.access

import rego.v1

allow if "agents" in input.identity.groups

allow if "support" in input.identity.groups
