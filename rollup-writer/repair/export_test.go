package repair

// SetStep has fn called before each statement that changes a table.
func (c *RebuildConfig) SetStep(fn func(what string) error) { c.step = fn }
