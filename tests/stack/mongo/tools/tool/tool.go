// Package tool has what mongodump and mongorestore share: options, the password, the connection, the log.
package tool

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"gopkg.in/yaml.v3"
)

// Version says in the archive's header and in `--version` that this is not MongoDB's program.
const Version = "stand-in-of-the-devstack-tests"

// Options are those of the original that the tests may use. Others are refused, as the original refuses unknown ones.
type Options struct {
	Archive Archive
	DB      string
	// Last is called at the end, after a failure was told.
	Last func()

	uri, host, port, username, password, authDatabase, config string
	quiet                                                     bool
}

// Archive is `--archive`, or `--archive=FILE`.
type Archive struct {
	asked bool
	file  string
}

func (a *Archive) String() string   { return a.file }
func (a *Archive) IsBoolFlag() bool { return true }

// Set takes the option's value; without one the flag package says "true".
func (a *Archive) Set(value string) error {
	a.asked = true
	if value != "true" {
		a.file = value
	}
	return nil
}

// Names is an option that may be given more than once.
type Names []string

func (n *Names) String() string { return strings.Join(*n, ",") }

// Set takes one value.
func (n *Names) Set(value string) error { *n = append(*n, value); return nil }

// Match says if one of the patterns, in which `*` stands for anything, is the namespace.
func (n Names) Match(namespace string) bool {
	for _, pattern := range n {
		if fits, _ := path.Match(pattern, namespace); fits {
			return true
		}
	}
	return false
}

// Run is main: parses, runs, reports. The original ends with 1 whatever went wrong.
func Run(name string, more func(*flag.FlagSet), work func(context.Context, *Options) error) {
	var o Options
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	text := func(target *string, help string, names ...string) {
		for _, n := range names {
			flags.StringVar(target, n, "", help)
		}
	}
	text(&o.uri, "connection string", "uri")
	text(&o.host, "host, also host:port", "host", "h")
	text(&o.port, "port", "port")
	text(&o.username, "user", "username", "u")
	text(&o.password, "password; better in --config or as the first line of standard input", "password", "p")
	text(&o.authDatabase, "the database that holds the user", "authenticationDatabase")
	text(&o.config, "YAML file with password: or uri:", "config")
	text(&o.DB, "only this database", "db", "d")
	flags.BoolVar(&o.quiet, "quiet", false, "no log")
	flags.Var(&o.Archive, "archive", "the only form supported: standard input or output, or a file with =FILE")
	version := flags.Bool("version", false, "the version")
	more(flags)
	if err := flags.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(os.Stdout)
			flags.PrintDefaults()
			return
		}
		Log("error parsing command line options: %s", err)
		os.Exit(1)
	}
	if *version {
		fmt.Printf("%s version: %s\n", name, Version)
		return
	}
	silent = o.quiet
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := func() error {
		if flags.NArg() > 0 {
			return fmt.Errorf("error parsing positional arguments: %s is not understood", flags.Arg(0))
		}
		if !o.Archive.asked {
			return errors.New("this stand-in only works with --archive")
		}
		return work(ctx, &o)
	}()
	if ctx.Err() != nil {
		Log("signal received; attempting to shut down")
	}
	if err != nil {
		silent = false
		Log("Failed: %s", err)
	}
	if o.Last != nil {
		o.Last()
	}
	if err != nil {
		os.Exit(1)
	}
}

var silent bool

// Log writes a line to standard error as the original does.
func Log(format string, values ...any) {
	if !silent {
		fmt.Fprintf(os.Stderr, "%s\t%s\n", time.Now().Format("2006-01-02T15:04:05.000-0700"), fmt.Sprintf(format, values...))
	}
}

// Connect logs in. A user without a password has it read from standard input, byte by byte, so that what follows the
// line (an archive) is still there.
func (o *Options) Connect(ctx context.Context) (*mongo.Client, error) {
	if o.config != "" {
		bytes, err := os.ReadFile(o.config)
		if err != nil {
			return nil, fmt.Errorf("error opening file with --config: %w", err)
		}
		var file struct{ Password, URI string }
		if err := yaml.Unmarshal(bytes, &file); err != nil {
			return nil, errors.New("error parsing config file: it is not YAML with password: or uri:")
		}
		if file.Password != "" {
			o.password = file.Password
		}
		if file.URI != "" {
			o.uri = file.URI
		}
	}
	client := options.Client().SetAppName("devstack-test").SetDirect(true)
	if o.uri != "" {
		client.ApplyURI(o.uri)
	} else {
		host, port := o.host, o.port
		if host == "" {
			host = "localhost"
		}
		if port != "" {
			host += ":" + port
		}
		client.ApplyURI("mongodb://" + host + "/")
	}
	if o.username != "" {
		if o.password == "" {
			Log("reading password from standard input")
			password, err := line(os.Stdin)
			if err != nil {
				return nil, err
			}
			o.password = password
		}
		source := o.authDatabase
		if source == "" {
			source = o.DB
		}
		if source == "" {
			source = "admin"
		}
		client.SetAuth(options.Credential{Username: o.username, Password: o.password, PasswordSet: true, AuthSource: source})
	}
	connection, err := mongo.Connect(client)
	if err == nil {
		err = connection.Ping(ctx, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("can't create session: failed to connect: %w", err)
	}
	return connection, nil
}

func line(in io.Reader) (string, error) {
	var text []byte
	one := make([]byte, 1)
	for {
		if _, err := io.ReadFull(in, one); errors.Is(err, io.EOF) {
			return string(text), nil
		} else if err != nil {
			return "", err
		}
		if one[0] == '\n' || one[0] == '\r' {
			return string(text), nil
		}
		text = append(text, one[0])
	}
}

// Output is where the archive goes.
func (o *Options) Output() (io.WriteCloser, string, error) {
	if o.Archive.file == "" {
		return os.Stdout, "archive on stdout", nil
	}
	file, err := os.Create(o.Archive.file)
	return file, "archive " + o.Archive.file, err
}

// Input is where the archive comes from.
func (o *Options) Input() (io.ReadCloser, string, error) {
	if o.Archive.file == "" {
		return os.Stdin, "archive on stdin", nil
	}
	file, err := os.Open(o.Archive.file)
	return file, "archive " + o.Archive.file, err
}

// Plural is `1 document`, `2 documents`.
func Plural(n int64) string {
	if n == 1 {
		return "1 document"
	}
	return fmt.Sprintf("%d documents", n)
}
