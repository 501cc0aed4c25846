package known

import "sync"

// Memory remembers ids in this process, as hashes in two generations: when the young
// generation is full it becomes the old one, and the previous old one is discarded. So
// at least limit/2 and at most limit of the most recently seen ids are known.
type Memory struct {
	mu         sync.Mutex // covers young and old
	limit      int
	young, old map[Hash]struct{}
}

// NewMemory returns a memory for that many ids, of about 40 bytes each.
func NewMemory(limit int) *Memory {
	return &Memory{limit: max(limit, 2), young: map[Hash]struct{}{}}
}

// Has reports whether an id is known. It never fails.
func (m *Memory) Has(app string, kind byte, id string) (bool, error) {
	return m.has(HashOf(app, kind, id)), nil
}

// Add makes an id known. It never fails.
func (m *Memory) Add(app string, kind byte, id string) error {
	m.add(HashOf(app, kind, id))
	return nil
}

func (m *Memory) has(h Hash) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.young[h]; ok {
		return true
	}
	if _, ok := m.old[h]; !ok {
		return false
	}
	m.put(h) // keep ids that are looked up
	return true
}

func (m *Memory) add(h Hash) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(h)
}

func (m *Memory) put(h Hash) {
	if _, ok := m.young[h]; ok {
		return
	}
	if len(m.young) >= m.limit/2 {
		m.old, m.young = m.young, map[Hash]struct{}{}
	}
	m.young[h] = struct{}{}
}
