package columns

// SendAsText makes the block's objects be sent as text.
func (c *Events) SendAsText() {
	c.properties.choose(formText)
	c.traits.choose(formText)
}

// SentTyped reports whether the block's properties were sent as typed paths.
func (c *Events) SentTyped() bool { return c.properties.form == formTyped }
