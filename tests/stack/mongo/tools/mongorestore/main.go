// mongorestore of the MongoDB stand-in: `mongorestore --archive` as far as the tests use it. As with the original,
// documents go in as they are read, before the checksum that proves them, and documents that the server refuses are
// counted while the exit code stays 0.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"

	"devstack-test/mongo-tools/archive"
	"devstack-test/mongo-tools/tool"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const (
	users     = "admin.system.users"
	batchSize = 1000
	batchRoom = 8 << 20
)

var (
	drop, noIndexes, stop, dry   bool
	include, exclude, from, into tool.Names
)

func main() {
	tool.Run("mongorestore", func(flags *flag.FlagSet) {
		flags.BoolVar(&drop, "drop", false, "drop each collection of the archive before it is restored")
		flags.BoolVar(&noIndexes, "noIndexRestore", false, "no indexes but that of _id")
		flags.BoolVar(&stop, "stopOnError", false, "end at the first refused document")
		flags.Bool("bypassDocumentValidation", false, "taken, and means nothing: the stand-in server has no validators")
		flags.BoolVar(&dry, "dryRun", false, "read the beginning of the archive, write nothing")
		flags.Var(&include, "nsInclude", "only these namespaces, * for anything")
		flags.Var(&exclude, "nsExclude", "not these namespaces, * for anything")
		flags.Var(&from, "nsFrom", "rename: this exact namespace")
		flags.Var(&into, "nsTo", "rename: to this one")
	}, restore)
}

type target struct {
	db, name    string
	collection  *mongo.Collection
	announced   archive.Collection
	begun       bool
	batch       []any
	room        int
	done, fails int64
}

type restoring struct {
	ctx     context.Context
	client  *mongo.Client
	targets map[string]*target
	place   string
	kept    []any
}

func restore(ctx context.Context, o *tool.Options) error {
	r := restoring{ctx: ctx, targets: map[string]*target{}}
	o.Last = func() {
		var done, fails int64
		for _, t := range r.targets {
			done, fails = done+t.done, fails+t.fails
		}
		tool.Log("%d document(s) restored successfully. %d document(s) failed to restore.", done, fails)
	}
	if len(from) != len(into) {
		return errors.New("--nsFrom and --nsTo must be specified equally often")
	}
	var err error
	if r.client, err = o.Connect(ctx); err != nil {
		return err
	}
	in, place, err := o.Input()
	if err != nil {
		return err
	}
	r.place = place
	reader, err := archive.NewReader(in)
	if err != nil {
		return err
	}
	tool.Log("preparing collections to restore from")
	for _, c := range reader.Collections {
		r.plan(c, o.DB)
	}
	if dry {
		return nil
	}
	if err := reader.Blocks(r.document, r.ended); err != nil {
		return err
	}
	if err := r.users(); err != nil {
		return err
	}
	return r.indexes(reader.Collections)
}

// plan decides where a collection of the archive goes, if anywhere.
func (r *restoring) plan(c archive.Collection, only string) {
	namespace := c.Namespace()
	if only != "" && c.DB != only || exclude.Match(namespace) || len(include) > 0 && !include.Match(namespace) {
		return
	}
	goes := namespace
	for i := range from {
		if from[i] == namespace {
			goes = into[i]
		}
	}
	db, name, _ := strings.Cut(goes, ".")
	r.targets[namespace] = &target{db: db, name: name, announced: c, collection: r.client.Database(db).Collection(name)}
	tool.Log("reading metadata for `%s` from `%s`", goes, r.place)
}

func (r *restoring) document(namespace string, document []byte) error {
	t := r.targets[namespace]
	if t == nil {
		return nil
	}
	if namespace == users {
		r.kept = append(r.kept, bson.Raw(document))
		return nil
	}
	if err := r.begin(t); err != nil {
		return err
	}
	t.batch, t.room = append(t.batch, bson.Raw(document)), t.room+len(document)
	if len(t.batch) < batchSize && t.room < batchRoom {
		return nil
	}
	return r.insert(t)
}

func (r *restoring) ended(namespace string) error {
	t := r.targets[namespace]
	if t == nil || namespace == users {
		return nil
	}
	if err := r.begin(t); err != nil {
		return err
	}
	if err := r.insert(t); err != nil {
		return err
	}
	tool.Log("finished restoring `%s.%s` (%s, %d failures)", t.db, t.name, tool.Plural(t.done), t.fails)
	return nil
}

func (r *restoring) begin(t *target) error {
	if t.begun {
		return nil
	}
	t.begun = true
	if t.db == "admin" && strings.HasPrefix(t.name, "system.") {
		return nil
	}
	if drop {
		tool.Log("dropping collection `%s.%s` before restoring", t.db, t.name)
		if err := t.collection.Drop(r.ctx); err != nil {
			return fmt.Errorf("%s.%s: error dropping collection: %w", t.db, t.name, err)
		}
	}
	tool.Log("restoring `%s.%s` from `%s`", t.db, t.name, r.place)
	metadata, err := t.metadata()
	if err != nil {
		return err
	}
	err = r.client.Database(t.db).RunCommand(r.ctx, append(bson.D{{Key: "create", Value: t.name}}, metadata.Options...)).Err()
	var refused mongo.CommandError
	if errors.As(err, &refused) && refused.Code == 48 { // NamespaceExists
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s.%s: error creating collection: %w", t.db, t.name, err)
	}
	return nil
}

func (r *restoring) insert(t *target) error {
	if len(t.batch) == 0 {
		return nil
	}
	batch := t.batch
	t.batch, t.room = nil, 0
	_, err := t.collection.InsertMany(r.ctx, batch, options.InsertMany().SetOrdered(false))
	var refused mongo.BulkWriteException
	if errors.As(err, &refused) && refused.WriteConcernError == nil && !stop {
		for _, one := range refused.WriteErrors {
			tool.Log("continuing through error: %s", one.Message)
		}
		t.fails += int64(len(refused.WriteErrors))
		t.done += int64(len(batch) - len(refused.WriteErrors))
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s.%s: error restoring from %s: %w", t.db, t.name, r.place, err)
	}
	t.done += int64(len(batch))
	return nil
}

// users puts the users back. MongoDB has a command of its own for this; the stand-in server keeps them in a collection
// that can be written. With --drop, users that are not in the archive go.
func (r *restoring) users() error {
	t := r.targets[users]
	if t == nil {
		return nil
	}
	tool.Log("restoring users from `%s`", r.place)
	var names bson.A
	for _, user := range r.kept {
		id := user.(bson.Raw).Lookup("_id")
		names = append(names, id)
		_, err := t.collection.ReplaceOne(r.ctx, bson.D{{Key: "_id", Value: id}}, user, options.Replace().SetUpsert(true))
		if err != nil {
			return fmt.Errorf("error restoring users: %w", err)
		}
	}
	if drop && len(names) > 0 {
		if _, err := t.collection.DeleteMany(r.ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$nin", Value: names}}}}); err != nil {
			return fmt.Errorf("error dropping users: %w", err)
		}
	}
	return nil
}

type metadata struct {
	Options bson.D   `bson:"options"`
	Indexes []bson.D `bson:"indexes"`
}

func (t *target) metadata() (m metadata, err error) {
	if err = bson.UnmarshalExtJSON([]byte(t.announced.Metadata), true, &m); err != nil {
		err = fmt.Errorf("%s: error parsing metadata: %w", t.announced.Namespace(), err)
	}
	return m, err
}

// plain is nil for the index that every collection has. The original sends `v` and adds `ns`, which MongoDB takes and
// the stand-in server refuses.
func plain(index bson.D) (kept bson.D) {
	for _, element := range index {
		switch {
		case element.Key == "name" && element.Value == "_id_":
			return nil
		case element.Key != "v" && element.Key != "ns":
			kept = append(kept, element)
		}
	}
	return kept
}

// indexes come last, when all documents are in.
func (r *restoring) indexes(collections []archive.Collection) error {
	for _, c := range collections {
		t := r.targets[c.Namespace()]
		if t == nil || noIndexes || t.db == "admin" && strings.HasPrefix(t.name, "system.") {
			continue
		}
		metadata, err := t.metadata()
		if err != nil {
			return err
		}
		var wanted bson.A
		for _, index := range metadata.Indexes {
			if index = plain(index); index != nil {
				wanted = append(wanted, index)
			}
		}
		if len(wanted) == 0 {
			tool.Log("no indexes to restore for collection `%s.%s`", t.db, t.name)
			continue
		}
		tool.Log("restoring indexes for collection `%s.%s` from metadata", t.db, t.name)
		command := bson.D{{Key: "createIndexes", Value: t.name}, {Key: "indexes", Value: wanted}}
		if err := r.client.Database(t.db).RunCommand(r.ctx, command).Err(); err != nil {
			return fmt.Errorf("%s.%s: error creating indexes for %s.%s: createIndex error: %w", t.db, t.name, t.db, t.name, err)
		}
	}
	return nil
}
