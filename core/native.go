package core

// Native is a plugin that is part of the program, for what a guest is too slow at. A build brings it along, as it does its
// protocols. Nothing stands between it and the gateway: it is trusted as the gateway's own code is, and nothing but itself bounds
// what it takes of memory and time.
type Native struct {
	Name         string // as the configuration says it
	Version      string
	Schema       string       // of its settings, in JSON Schema
	Subscription Subscription // what it wants; an operator may narrow it
	Mutates      bool         // it changes values
	Counters     []string     // its own, as a guest's metrics
	// New makes one with the settings of one step.
	New func(NativeConfig) (Plugin, error)
}

// NativeConfig is what a Native is given for one step.
type NativeConfig struct {
	Settings     []byte       // a JSON object that Schema allows
	Subscription Subscription // the Native's own, narrowed by Only: it is to look at nothing else
	Passed       func(rows, bytes int)
	Count        func(counter string, n int)
}
