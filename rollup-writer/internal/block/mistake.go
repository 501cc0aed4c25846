//go:build failpoints

package block

// Force ends the open block before offset, which the rules do not allow: for tests that
// need its consequences.
func (c *Cutter) Force(offset int64) (Block, bool) {
	if !c.open {
		return Block{}, false
	}
	b := c.block
	b.End, b.Next = offset, offset
	c.open, c.boundary = false, offset
	return b, true
}
