package faults

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/schemas/topic"
)

// ghostAfter is how long kfake may keep a member that is no more. It is well
// over the session timeouts.
const ghostAfter = 3 * time.Second

// undertaker removes from the groups of kfake the members that are no more. A
// broker does so at the session timeout. kfake starts that timer only with an
// answer that it could deliver: a member that dies while its answer to a join is
// waited for stays forever, and so do the partitions it is given.
type undertaker struct {
	suspect map[string]time.Time // when a member was first seen to be doubtful
}

// bury looks once at the groups of a run's services.
func (u *undertaker) bury(ctx context.Context, e *env) error {
	alive := map[string]bool{}
	for _, list := range e.members {
		for _, m := range list {
			alive[m.Label()] = m.Running()
		}
	}
	for _, m := range e.spawned() {
		alive[m.Label()] = m.Running()
	}
	return u.buryIn(ctx, e.producer, alive, topic.Unprefixed.GroupEnricher, topic.Unprefixed.GroupRollupWriter)
}

// buryIn looks once at groups; alive are the members that run, by name.
func (u *undertaker) buryIn(ctx context.Context, client *kgo.Client, alive map[string]bool, names ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	groups, err := kadm.NewClient(client).DescribeGroups(ctx, names...)
	if err != nil {
		return fmt.Errorf("describe groups: %w", err)
	}
	seen := map[string]time.Time{}
	for _, g := range groups {
		byName := map[string][]string{}
		for _, m := range g.Members {
			name := strings.TrimSuffix(m.ClientID, "-main")
			byName[name] = append(byName[name], m.MemberID)
		}
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group = g.Group
		for name, ids := range byName {
			if alive[name] && len(ids) == 1 {
				continue
			}
			// Of several one at most lives, and joins again.
			for _, id := range ids {
				since, ok := u.suspect[id]
				if !ok {
					since = time.Now()
				}
				if time.Since(since) < ghostAfter {
					seen[id] = since
					continue
				}
				m := kmsg.NewLeaveGroupRequestMember()
				m.MemberID = id
				req.Members = append(req.Members, m)
			}
		}
		if len(req.Members) == 0 {
			continue
		}
		if _, err := req.RequestWith(ctx, client); err != nil {
			return fmt.Errorf("remove members from group %s: %w", g.Group, err)
		}
	}
	u.suspect = seen
	return nil
}
