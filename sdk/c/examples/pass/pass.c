/* pass sees everything and does nothing: what is left is the price of a call. */
#include "../../weir.h"

WEIR_PLUGIN(
	.name = "pass", .version = "1.0.0",
	.subscribe = {{.kinds = WEIR_EVERYTHING, .columns = {"*"}}})
