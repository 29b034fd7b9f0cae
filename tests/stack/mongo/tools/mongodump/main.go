// mongodump of the MongoDB stand-in: `mongodump --archive` as far as the tests use it, in the original's format.
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"slices"
	"sync"

	"devstack-test/mongo-tools/archive"
	"devstack-test/mongo-tools/tool"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

var (
	collection string
	exclude    tool.Names
	parallel   int
	oplog      bool
)

func main() {
	tool.Run("mongodump", func(flags *flag.FlagSet) {
		flags.StringVar(&collection, "collection", "", "only this collection of --db")
		flags.StringVar(&collection, "c", "", "the same")
		flags.Var(&exclude, "excludeCollection", "not this collection of --db; may be given more than once")
		flags.IntVar(&parallel, "numParallelCollections", 4, "collections read at the same time")
		flags.IntVar(&parallel, "j", 4, "the same")
		flags.BoolVar(&oplog, "oplog", false, "fails as it does on every server that is not in a replica set")
	}, dump)
}

func dump(ctx context.Context, o *tool.Options) error {
	if o.DB == "" && (collection != "" || len(exclude) > 0) {
		return errors.New("bad option: --db is required with --collection or --excludeCollection")
	}
	if parallel < 1 {
		return errors.New("bad option: --numParallelCollections must be positive")
	}
	client, err := o.Connect(ctx)
	if err != nil {
		return err
	}
	if oplog {
		return errors.New("error getting oplog start: the server is not in a replica set")
	}
	collections, err := find(ctx, client, o)
	if err != nil {
		return err
	}
	var build struct{ Version string }
	if err := client.Database("admin").RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Decode(&build); err != nil {
		return err
	}
	out, place, err := o.Output()
	if err != nil {
		return err
	}
	writer, err := archive.NewWriter(out, archive.Header{
		ConcurrentCollections: int32(parallel),
		FormatVersion:         archive.FormatVersion,
		ServerVersion:         build.Version,
		ToolVersion:           tool.Version,
	}, collections)
	if err != nil {
		return fmt.Errorf("archive writer: %w", err)
	}
	err = all(ctx, client, writer, collections, place)
	if flushed := writer.Flush(); err == nil && flushed != nil {
		err = fmt.Errorf("archive writer: %w", flushed)
	}
	if closed := out.Close(); err == nil && closed != nil {
		err = fmt.Errorf("archive writer: %w", closed)
	}
	return err
}

// all reads the collections, several at a time. After a failure no further one is begun; those under way are ended
// with a checksum like whole ones, as the original does.
func all(ctx context.Context, client *mongo.Client, writer *archive.Writer, collections []archive.Collection, place string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers sync.WaitGroup
	var once sync.Once
	var first error
	queue := make(chan archive.Collection)
	for range parallel {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for c := range queue {
				tool.Log("writing `%s` to `%s`", c.Namespace(), place)
				n, err := one(ctx, client, writer, c)
				if err != nil {
					once.Do(func() { first = fmt.Errorf("error writing data for collection `%s` to disk: %w", c.Namespace(), err) })
					cancel()
					continue
				}
				tool.Log("done dumping `%s` (%s)", c.Namespace(), tool.Plural(n))
			}
		}()
	}
feed:
	for _, c := range collections {
		select {
		case queue <- c:
		case <-ctx.Done():
			once.Do(func() { first = errors.New("received termination signal") })
			break feed
		}
	}
	close(queue)
	workers.Wait()
	return first
}

func one(ctx context.Context, client *mongo.Client, writer *archive.Writer, c archive.Collection) (n int64, err error) {
	stream := writer.Stream(c)
	defer func() {
		if closed := stream.Close(); err == nil {
			err = closed
		}
	}()
	cursor, err := client.Database(c.DB).Collection(c.Collection).Find(ctx, bson.D{})
	if err != nil {
		return 0, fmt.Errorf("error reading collection: %w", err)
	}
	defer cursor.Close(context.WithoutCancel(ctx))
	for cursor.Next(ctx) {
		if err := stream.Write(cursor.Current); err != nil {
			return n, err
		}
		n++
	}
	if err := cursor.Err(); err != nil {
		return n, fmt.Errorf("error reading collection: %w", err)
	}
	return n, nil
}

// system says which of the server's own collections belong into a dump.
func system(db, name string) bool {
	switch name {
	case "system.users", "system.roles", "system.version":
		return db == "admin"
	}
	return name == "system.js"
}

func find(ctx context.Context, client *mongo.Client, o *tool.Options) ([]archive.Collection, error) {
	databases := []string{o.DB}
	if o.DB == "" {
		var err error
		if databases, err = client.ListDatabaseNames(ctx, bson.D{}); err != nil {
			return nil, fmt.Errorf("error creating intents to dump: error getting database names: %w", err)
		}
	}
	var found []archive.Collection
	for _, db := range databases {
		if o.DB == "" && (db == "local" || db == "config") {
			continue
		}
		specifications, err := client.Database(db).ListCollectionSpecifications(ctx, bson.D{})
		if err != nil {
			return nil, fmt.Errorf("error creating intents to dump: error getting collections for database `%s`: %w", db, err)
		}
		for _, s := range specifications {
			if len(s.Name) > 7 && s.Name[:7] == "system." && !system(db, s.Name) {
				continue
			}
			if collection != "" && s.Name != collection || slices.Contains(exclude, s.Name) {
				continue
			}
			if s.Type != "collection" {
				return nil, fmt.Errorf("`%s.%s` is a %s: this stand-in only dumps plain collections", db, s.Name, s.Type)
			}
			metadata, err := describe(ctx, client, db, s)
			if err != nil {
				return nil, err
			}
			found = append(found, archive.Collection{DB: db, Collection: s.Name, Metadata: metadata, Type: s.Type})
		}
	}
	return found, nil
}

func describe(ctx context.Context, client *mongo.Client, db string, s mongo.CollectionSpecification) (string, error) {
	cursor, err := client.Database(db).Collection(s.Name).Indexes().List(ctx)
	var indexes []bson.D
	if err == nil {
		err = cursor.All(ctx, &indexes)
	}
	if err != nil {
		return "", fmt.Errorf("error getting indexes for collection `%s.%s`: %w", db, s.Name, err)
	}
	var metadata bson.D
	if elements, err := s.Options.Elements(); err == nil && len(elements) > 0 {
		metadata = append(metadata, bson.E{Key: "options", Value: s.Options})
	}
	metadata = append(metadata, bson.E{Key: "indexes", Value: indexes})
	if s.UUID != nil {
		metadata = append(metadata, bson.E{Key: "uuid", Value: hex.EncodeToString(s.UUID.Data)})
	}
	metadata = append(metadata, bson.E{Key: "collectionName", Value: s.Name}, bson.E{Key: "type", Value: s.Type})
	text, err := bson.MarshalExtJSON(metadata, true, false)
	return string(text), err
}
