package embedded

// Confinement is for tests of other packages' eyes: why a child cannot be confined.
var Confinement = confinement
