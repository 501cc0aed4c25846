package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/svc/kafka"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
)

// topics are the commands that create or check the topics of all services.
func topics(getenv func(string) (string, bool), stdout, stderr io.Writer) *process.Program {
	run := func(verb string) func([]string) error {
		return func(args []string) error { return runTopics(verb, args, getenv, stdout, stderr) }
	}
	return &process.Program{Commands: []process.Command{
		{Name: "apply", Summary: "create the topics that do not exist", Run: run("apply")},
		{Name: "check", Summary: "check the settings of the topics", Run: run("check")},
		{Name: "acls", Summary: "print the commands that give each user in Kafka the rights that it needs", Run: func(args []string) error { return printRights(args, getenv, stdout, stderr) }},
	}}
}

// printRights prints, by user, commands of kafka-acls.sh. It asks no cluster.
func printRights(args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) error {
	set := process.NewFlags("enricher topics acls", "warn", stderr)
	k := kafka.DefaultConfig("uptake-topics")
	k.Flags(set.FlagSet)
	user := set.String("user", "", "`name` of the user whose rights are printed: "+strings.Join(topic.Users, ", ")+"; empty: all")
	principal := set.String("principal", "User:"+userPlace, "`principal` that gets the rights; "+userPlace+" in it stands for the user's name")
	group := set.String("group", topic.BaseGroupEnricher, "consumer `group` of the enrichers; kafka-prefix is put before it")
	if _, err := set.Parse(args, getenv, k.Validate, func() error {
		if *user != "" && !slices.Contains(topic.Users, *user) {
			return fmt.Errorf("user must be one of %s (got %q)", strings.Join(topic.Users, ", "), *user)
		}
		if kind, name, ok := strings.Cut(*principal, ":"); !ok || kind == "" || name == "" {
			return fmt.Errorf("principal must be a kind and a name, such as User:%s (got %q)", userPlace, *principal)
		}
		return nil
	}); err != nil {
		return err
	}
	for _, u := range topic.Users {
		if *user != "" && u != *user {
			continue
		}
		fmt.Fprintf(stdout, "# %s\n", u)
		for _, r := range k.Names().Rights(u, *group) {
			fmt.Fprintln(stdout, r.Command(strings.ReplaceAll(*principal, userPlace, u)))
		}
	}
	return nil
}

// userPlace stands for a user's name in a principal.
const userPlace = "{user}"

func runTopics(verb string, args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) error {
	set := process.NewFlags("enricher topics "+verb, "warn", stderr)
	k := kafka.DefaultConfig("uptake-topics")
	k.Flags(set.FlagSet)
	layout := topic.DefaultLayout()
	partitions, rejected, replication := int(layout.Partitions), int(layout.RejectedPartitions), int(layout.Replication)
	if verb == "apply" {
		set.IntVar(&partitions, "partitions", partitions, "partitions of raw, links, enriched and enricher-state; fixed once the topics exist")
		set.IntVar(&rejected, "rejected-partitions", rejected, "of rejected")
		set.IntVar(&replication, "replication", replication, "replicas of each partition; -1: the brokers' default")
		set.IntVar(&layout.MinInsync, "min-insync", layout.MinInsync, "replicas that must have a record before it is acked")
		set.IntVar(&layout.MaxMessageBytes, "max-message-bytes", layout.MaxMessageBytes, "`bytes` of the largest batch of records")
	}
	timeout := set.Duration("timeout", 30*time.Second, "how long to wait for the brokers")
	logger, err := set.Parse(args, getenv, k.Validate, func() error {
		layout.Partitions, layout.RejectedPartitions, layout.Replication = int32(partitions), int32(rejected), int16(replication)
		return layout.Validate()
	})
	if err != nil {
		return err
	}
	opts, err := k.Options(logger, nil)
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	adm, installation := kadm.NewClient(cl), k.Names()
	if verb == "apply" {
		if err := installation.Ensure(ctx, adm, layout); err != nil {
			return err
		}
	}
	var names []string
	for _, s := range installation.Specs(layout) {
		names = append(names, s.Name)
	}
	var infos map[string]topic.Info
	pause := backoff.Every(100 * time.Millisecond)
	err = pause.Retry(ctx, *timeout, func() (err error) {
		infos, err = installation.Check(ctx, adm, names...)
		return err
	}, func(err error) bool {
		// A broker reports a topic as created before it has all of the topic's metadata.
		return verb == "apply" && errors.Is(err, topic.ErrMissing)
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		fmt.Fprintf(stdout, "%-*s %d partitions\n", 28+len(k.Prefix), name, infos[name].Partitions)
	}
	return nil
}
