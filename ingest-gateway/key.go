package main

import (
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/keys"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// keyCommands manage write keys in the key file.
func keyCommands(getenv func(string) (string, bool), stdout, stderr io.Writer, now time.Time) *process.Program {
	// flags defines those of a command beside -keys, and returns what it does.
	command := func(name, summary string, flags func(set *flag.FlagSet, file *string) func() error) process.Command {
		return process.Command{Name: name, Summary: summary, Run: func(args []string) error {
			set := flag.NewFlagSet("ingest-gateway key "+name, flag.ContinueOnError)
			set.SetOutput(stderr)
			file := new(string)
			if name != "new" {
				set.StringVar(file, "keys", "keys.yaml", "`file` of apps and their write keys")
			}
			act := flags(set, file)
			rest, err := setting.Parse(set, args, getenv)
			if err == nil && len(rest) > 0 {
				err = fmt.Errorf("unexpected argument %q", rest[0])
			}
			if err != nil {
				return process.UsageError(err)
			}
			return act()
		}}
	}
	return &process.Program{
		Commands: []process.Command{
			command("new", "print a fresh write key, once, and the line for the key file", func(*flag.FlagSet, *string) func() error {
				return func() error {
					key := keys.New()
					fmt.Fprintf(stdout, "write key (shown this once): %s\nline for the key file:       - %q\n", key, keys.HashOf(key).String())
					return nil
				}
			}),
			command("list", "list the keys of the key file: what each may do, and until when", func(_ *flag.FlagSet, file *string) func() error {
				return func() error { return listKeys(stdout, *file, now) }
			}),
			command("add", "make a key of an app and write its hash into the key file", func(set *flag.FlagSet, file *string) func() error {
				return addKey(set, file, stdout, now)
			}),
			command("rotate", "make a key in place of another, which expires after an overlap", func(set *flag.FlagSet, file *string) func() error {
				app, id := oneKey(set)
				overlap := set.Duration("overlap", 7*24*time.Hour, "how long the old key remains valid")
				return func() error {
					key, err := keys.Rotate(*file, *app, *id, now.Add(*overlap))
					return shown(stdout, *app, key, err)
				}
			}),
			command("revoke", "remove a key from the key file", func(set *flag.FlagSet, file *string) func() error {
				app, id := oneKey(set)
				return func() error { return keys.Revoke(*file, *app, *id) }
			}),
		},
		Notes: "Gateways read the key file again within seconds (keys-poll).\n",
	}
}

// oneKey defines the flags that name a key.
func oneKey(set *flag.FlagSet) (app, id *string) {
	return set.String("app", "", "`id` of the app"), set.String("key", "", "`id` of the key, as `key list` shows it")
}

// addKey defines the flags of a new key.
func addKey(set *flag.FlagSet, file *string, stdout io.Writer, now time.Time) func() error {
	var t keys.Terms
	app := set.String("app", "", "`id` of the app, which must be in the file")
	set.StringVar(&t.Note, "note", "", "`text` that describes the key's purpose")
	lifetime := set.Duration("expires-in", 0, "how long the key is valid, such as 2160h; 0: until it is revoked")
	set.Var((*setting.Strings)(&t.Protocols), "protocols", "comma-separated `names` of the only protocols that the key may be used with: "+strings.Join(keys.Protocols, ", "))
	set.Var((*setting.Strings)(&t.Origins), "origins", "comma-separated `origins` of the only pages that may use the key")
	set.Float64Var(&t.Rate, "rate", 0, "events per second that the key may send to each gateway; 0: the app's bound")
	set.IntVar(&t.Burst, "burst", 0, "burst size in events; 0: twice the rate")
	set.Int64Var(&t.DailyQuota, "daily-quota", 0, "events per UTC day that the key may send to each gateway; 0: the app's bound")
	set.BoolVar(&t.History, "history", false, "the key may send events of any age, as imports with -history do")
	return func() error {
		if *lifetime != 0 {
			t.Expires = now.Add(*lifetime).UTC().Truncate(time.Second)
		}
		key, err := keys.Add(*file, *app, t)
		return shown(stdout, *app, key, err)
	}
}

func shown(w io.Writer, app, key string, err error) error {
	if err == nil {
		fmt.Fprintf(w, "write key of app %s (shown this once): %s\nid of the key: %s\n", app, key, keys.HashOf(key).ID())
	}
	return err
}

// listKeys prints a table.
func listKeys(w io.Writer, path string, now time.Time) error {
	all, err := keys.List(path, now)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "APP\tKEY\tSTATE\tEXPIRES\tPROTOCOLS\tORIGINS\tRATE\tDAILY QUOTA\tHISTORY\tNOTE")
	for _, k := range all {
		state, expires := "active", "never"
		history := "bounded"
		if k.History {
			history = "any age"
		}
		switch {
		case k.ID == "":
			k.ID, state, expires = "-", "may not send", "-"
		case k.Expired:
			state = "expired"
		}
		if !k.Expires.IsZero() {
			expires = k.Expires.Format(time.RFC3339)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.App, k.ID, state, expires,
			orAll(strings.Join(k.Protocols, ",")), orAll(strings.Join(k.Origins, ",")),
			orAll(strconv.FormatFloat(k.RatePerSecond, 'g', -1, 64)), orAll(strconv.FormatInt(k.DailyQuota, 10)), history, k.Note)
	}
	return t.Flush()
}

// orAll formats a bound of a key; where the key has none, the app's applies.
func orAll(s string) string {
	if s == "" || s == "0" {
		return "app's"
	}
	return s
}
