// HashiCorp's Vault, server and command line, without what the tests have no use for: tests/stack/README.md lists it.
package main

import (
	"fmt"
	"os"

	"github.com/hashicorp/cli"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/plugin"
	"github.com/hashicorp/vault/command"
	"github.com/hashicorp/vault/physical/raft"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
)

// Every command but `server` is Vault's own. The build tag `minimal`, which is Vault's own too, spares all the cloud plugins,
// but takes file storage with them; so the server is put together here.
func main() {
	arguments := os.Args[1:]
	if len(arguments) == 0 || arguments[0] != "server" {
		os.Exit(command.Run(arguments))
	}
	program := &cli.CLI{
		Name:        "vault",
		Args:        arguments,
		Commands:    map[string]cli.CommandFactory{"server": server},
		HelpFunc:    cli.BasicHelpFunc("vault"),
		HelpWriter:  os.Stdout,
		ErrorWriter: os.Stderr,
	}
	code, err := program.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error executing CLI:", err)
		code = 1
	}
	os.Exit(code)
}

func server() (cli.Command, error) {
	return &command.ServerCommand{
		BaseCommand: &command.BaseCommand{UI: &cli.BasicUi{Reader: os.Stdin, Writer: os.Stdout}},
		PhysicalBackends: map[string]physical.Factory{
			"file":  file.NewFileBackend,
			"inmem": inmem.NewInmem,
			"raft":  raft.NewRaftBackend,
		},
		AuditBackends: map[string]audit.Factory{
			"file":   audit.NewFileBackend,
			"socket": audit.NewSocketBackend,
			"syslog": audit.NewSyslogBackend,
		},
		// The others come from Vault's list of built-in plugins.
		CredentialBackends: map[string]logical.Factory{"plugin": plugin.Factory},
		LogicalBackends:    map[string]logical.Factory{"plugin": plugin.Factory, "kv": kv.Factory},
		ShutdownCh:         command.MakeShutdownCh(),
		SighupCh:           command.MakeSighupCh(),
		SigUSR2Ch:          command.MakeSigUSR2Ch(),
	}, nil
}
