# METADATA
# title: Who may open what
# description: Asked once, when a client connects. Without an allow there is no session.
package weir.access

allow if {
	input.target.name == "orders"
	"analysts" in input.identity.groups
}
