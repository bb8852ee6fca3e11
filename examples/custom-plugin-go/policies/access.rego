# METADATA
# title: Who may open what
package weir.access

allow if "analysts" in input.identity.groups
