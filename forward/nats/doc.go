// Package nats publishes batches on NATS: through JetStream with acknowledgements, or without any through core NATS.
//
// A batch becomes messages by subject, which a template makes of a series' labels, and by size. Send returns when the stream has acknowledged
// all of them. The header Nats-Msg-Id is the batch's ID with a hash of subject and content: the server swallows a message that
// comes again within its window of duplicates, and never one that was cut differently.
//
// Subjects. In a template such as varve.{__name__}.{job} a label's value stands for its name in braces, escaped so that it is one token, whatever
// it is, and can be read back: a dot, *, >, $, %, a space or another control character is %XX, its byte in hexadecimal digits; a
// missing or empty label is %-. Metadata of families goes to the subject of a series that has the family's name and no label else.
//
// Payloads. PayloadPrometheus is a prometheus.WriteRequest in a snappy block, the body of a remote write 1.0 request: everything but start
// timestamps, bit for bit. PayloadInflux is line protocol without what it can't express, which is counted. PayloadJSON is a JSON object
// and a newline for each sample, described at appendFloat and appendHistogram in json.go. The last two have no exemplars and no metadata.
//
// What an acknowledgement is worth. JetStream acknowledges what is in the page cache and syncs every two minutes unless it is set to sync
// always, so that a power cut takes back what was acknowledged. After a reconnect, unless it is plain that the server was up
// all the time, Rewinds says how far to go back; a sender that has just begun asks for nothing. What is published again then was
// cut anew and is not swallowed: a consumer has to take samples twice. A stream that came back empty has no more than that either.
//
// Core NATS has no acknowledgements at all: samples are delivered at most once, to whoever listens. Send waits until the server has taken
// them in.
//
// A Sender connects when it first sends, and is safe for use by several goroutines. It logs nothing and retries nothing but
// its connection.
package nats
