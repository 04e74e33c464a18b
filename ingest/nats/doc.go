// Package nats takes messages from NATS and hands them to other inputs' decoders: through a durable consumer of JetStream, which
// brings each message until it is acknowledged, or through subscriptions of core NATS, which bring it at most once.
//
//	server ─> Consume ─> queue ─> workers ─> ingest.Receiver ─> archive
//	             └─ waits for room (InFlightBytes)   └─ acknowledge, or dead letter and end
//
// An Input connects and finds or makes its consumer, and does so again whenever that breaks. Its workers take what is in the queue, join small messages of one
// payload to one body, and receive it. A message is acknowledged when all of it is durable. What becomes of a message otherwise:
//
//   - Trouble of the archive is waited out: the message is held, the server told that it is in progress, and it is received again, for as long as it takes.
//   - A message that will never be taken (ErrMalformed, ErrTooBig) becomes a dead letter, is ended and counted, once for each place in the stream.
//   - A message of which a part was refused becomes a dead letter too, with the reason, and is acknowledged: the rest is stored.
//   - What breaks a joined body is found by receiving its halves. To bring a message twice harms nothing.
//
// The order of messages is not kept: the archive doesn't need it.
//
// Payloads are the bodies that inputs read over HTTP. NewJSON reads the objects that Varve's forwarder writes as JSON. The header Content-Type of a
// message, if it has one, goes before Options.Payload.
//
// An Input runs once. Status may be called by any goroutine.
package nats
