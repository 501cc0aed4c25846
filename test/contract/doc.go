// Package contract holds what Uptake relies on in the log and in ClickHouse, as
// tests that run over each form of them: kfake, Apache Kafka and Kafka in a
// container; the embedded ClickHouse and a server in a container. So the
// form that runs on one machine behaves as production does wherever Uptake
// looks.
//
// A case states a promise, not an implementation. When one form breaks it, the
// services have to cope, or the form is not used.
package contract
