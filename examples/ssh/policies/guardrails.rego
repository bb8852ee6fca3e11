package weir.access

# Who may connect.
allow if "operators" in input.identity.groups

allow if "agents" in input.identity.groups
