package catalog

import "sort"

// Naming conventions that Lint knows; the first is the default.
func conventions() []string { return []string{"object_action", "action_object", "none"} }

// Casings that Lint knows; the first is the default.
func casings() []string { return []string{"title", "snake", "kebab", "camel", "any"} }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
