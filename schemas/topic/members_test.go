package topic

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A group of which the broker answers with an error is not one without members: a command
// that must run alone would run beside services.
func TestMembers(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	for _, tc := range []struct {
		code    *kerr.Error // nil: no error
		members int
		asked   string // of which group the answer is
		want    int
		err     bool
	}{
		{nil, 2, "g", 2, false},
		{nil, 0, "g", 0, false},
		{kerr.GroupIDNotFound, 0, "g", 0, false},
		{kerr.GroupAuthorizationFailed, 0, "g", 0, true},
		{kerr.UnknownServerError, 0, "g", 0, true},
		{nil, 0, "another", 0, true},
	} {
		c.ControlKey(int16(kmsg.DescribeGroups), func(req kmsg.Request) (kmsg.Response, error, bool) {
			resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
			g := kmsg.NewDescribeGroupsResponseGroup()
			g.Group = tc.asked
			if tc.code != nil {
				g.ErrorCode = tc.code.Code
			}
			g.Members = make([]kmsg.DescribeGroupsResponseGroupMember, tc.members)
			resp.Groups = append(resp.Groups, g)
			return resp, nil, true
		})
		n, err := Members(t.Context(), kadm.NewClient(cl), "g")
		if n != tc.want || (err != nil) != tc.err || (tc.err && tc.code != nil && !errors.Is(err, tc.code)) {
			t.Errorf("%v, %d members of %s: got %d, %v", tc.code, tc.members, tc.asked, n, err)
		}
	}
}
