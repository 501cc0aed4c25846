package loadgen

// Resolved attributes an event to whom it counts for once identity is resolved:
//
//   - an anonymous id that a call ties to a user (identify or any other call
//     that names both, alias with the id as the previous one) is that user, for
//     its earlier events too;
//   - an event keeps the account that it names, and one that names none counts
//     for its user's;
//   - a user who was introduced with a role in an account has it there, earlier
//     events included.
//
// A plan ties an anonymous id to one user at most and makes a user a member of
// one account with one role, so that no order in which the events arrive gives
// another answer.
func Resolved(stored []*Event) []Whom {
	type membership struct{ account, role string }
	users := map[string]string{} // by anonymous id
	members := map[string]membership{}
	for _, e := range stored {
		if e.User == "" {
			continue
		}
		if e.Anonymous != "" {
			users[e.Anonymous] = e.User
		}
		if e.Kind == kindAlias {
			users[e.Previous] = e.User
		}
		if (e.Kind == kindGroup || e.Kind == kindIdentify) && e.Account != "" {
			m := members[e.User]
			m.account = e.Account
			if e.Role != "" {
				m.role = e.Role
			}
			members[e.User] = m
		}
	}
	out := AsNamed(stored)
	for i, w := range out {
		if user := users[w.Actor]; w.ActorKind == actorAnonymous && user != "" {
			out[i].Actor, out[i].ActorKind = user, actorUser
		}
		if out[i].ActorKind != actorUser {
			continue
		}
		m := members[out[i].Actor]
		if out[i].Account == "" {
			out[i].Account = m.account
		}
		if out[i].Account == m.account {
			out[i].Role = m.role
		}
	}
	return out
}
