package detect

// Version is that of the plugin pii, as a guest and as a native step.
const Version = "1.1.0"

// Schema is that of its settings.
const Schema = `{"type":"object","additionalProperties":false,"properties":{"entities":{"type":"array","minItems":1,"items":{"enum":` +
	`["EMAIL","CARD","IBAN","SSN","AWS_KEY","JWT","PRIVATE_KEY","TOKEN","PHONE","IP","NATIONAL_ID","CONNECTION","CREDENTIAL","PERSONAL","SECRET"]}}}}`

// Metric is the counter of what was masked.
const Metric = "masked"
