package catalog

// Checks of Lint.
const (
	CheckDuplicate  = "duplicate"
	CheckNaming     = "naming"
	CheckOwner      = "owner"
	CheckPurpose    = "purpose"
	CheckEmpty      = "empty"
	CheckSize       = "size"
	CheckConflict   = "conflict"
	CheckDeprecated = "deprecated"
	CheckPlanned    = "planned"
)

func lintChecks() []string {
	return []string{
		CheckDuplicate, CheckNaming, CheckOwner, CheckPurpose, CheckEmpty, CheckSize,
		CheckConflict, CheckDeprecated, CheckPlanned,
	}
}
