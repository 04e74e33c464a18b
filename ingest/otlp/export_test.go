package otlp

// WithoutWalks makes all requests take the long way.
func (h *Handler) WithoutWalks() *Handler {
	h.longWay = true
	return h
}

// Walks says whether a body would be written by a walk.
func (h *Handler) Walks(body []byte) bool {
	w := &walk{h: h, families: make(map[string]struct{})}
	return w.request(body) && w.known()
}
