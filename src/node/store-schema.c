/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables. What a primary key says cannot be said wrong by any code: a hardware thread and a
 * device have one owner. Text n of the array brings version n to n + 1 and is never changed once
 * it has been released; times are seconds since 1970, memory is in bytes.
 */

#include "node/store-schema.h"

#include "lib/cleanup.h"

static const char version_1[] =
	/* A lease on this node. A reservation becomes one that runs, or ends at its time. */
	"CREATE TABLE cluster ("
	" id TEXT PRIMARY KEY, user INTEGER NOT NULL,"
	" state TEXT NOT NULL CHECK (state IN ('reserved', 'running')),"
	" since INTEGER NOT NULL, until INTEGER) STRICT, WITHOUT ROWID;"
	/* node: where a shared VM has to stay, else null. dir, instance: of its VMM, once it runs.
	 */
	"CREATE TABLE vm ("
	" id INTEGER PRIMARY KEY, cluster TEXT NOT NULL REFERENCES cluster ON DELETE CASCADE,"
	" name TEXT NOT NULL, since INTEGER NOT NULL, cpus INTEGER NOT NULL CHECK (cpus > 0),"
	" dedicated INTEGER NOT NULL CHECK (dedicated IN (0, 1)),"
	" bound INTEGER NOT NULL DEFAULT 0 CHECK (bound IN (0, 1)),"
	" dir TEXT, instance TEXT, UNIQUE (cluster, name)) STRICT;"
	"CREATE TABLE cpu ("
	" cpu INTEGER PRIMARY KEY, vm INTEGER NOT NULL REFERENCES vm ON DELETE CASCADE) STRICT;"
	"CREATE INDEX cpu_vm ON cpu (vm);"
	"CREATE TABLE device ("
	" address TEXT PRIMARY KEY, vm INTEGER NOT NULL REFERENCES vm ON DELETE CASCADE)"
	" STRICT, WITHOUT ROWID;"
	"CREATE INDEX device_vm ON device (vm);"
	"CREATE TABLE memory ("
	" vm INTEGER NOT NULL REFERENCES vm ON DELETE CASCADE, node INTEGER NOT NULL,"
	" page_size INTEGER NOT NULL CHECK (page_size > 0), bytes INTEGER NOT NULL CHECK (bytes > "
	"0),"
	" PRIMARY KEY (vm, node, page_size)) STRICT, WITHOUT ROWID;"
	/* What VMs used; stays when they have gone. ended is null while it runs, seen its last
	   record. */
	"CREATE TABLE usage ("
	" id INTEGER PRIMARY KEY, cluster TEXT NOT NULL, vm TEXT NOT NULL, user INTEGER NOT NULL,"
	" started INTEGER NOT NULL, seen INTEGER NOT NULL, ended INTEGER, how TEXT,"
	" cpus INTEGER NOT NULL, cores INTEGER NOT NULL, memory INTEGER NOT NULL,"
	" devices INTEGER NOT NULL, cpu_us INTEGER NOT NULL DEFAULT 0,"
	" peak_memory INTEGER NOT NULL DEFAULT 0, exits INTEGER NOT NULL DEFAULT 0,"
	" bytes INTEGER NOT NULL DEFAULT 0, CHECK (seen >= started)) STRICT;"
	"CREATE INDEX usage_cluster ON usage (cluster, vm);"
	"CREATE INDEX usage_user ON usage (user, started);"
	"CREATE TABLE event ("
	" id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, cluster TEXT, vm TEXT,"
	" what TEXT NOT NULL, text TEXT NOT NULL) STRICT;";

/* What counters had when what counts began anew (a reboot of a VM): a total is that and what it
 * says now. */
static const char version_2[] =
	"ALTER TABLE usage ADD COLUMN cpu_before INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE usage ADD COLUMN exits_before INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE usage ADD COLUMN bytes_before INTEGER NOT NULL DEFAULT 0;";

/* Who keeps a reservation; and why the node takes no more of them. */
static const char version_3[] =
	"ALTER TABLE cluster ADD COLUMN session TEXT;"
	"CREATE TABLE drain (id INTEGER PRIMARY KEY CHECK (id = 1), because TEXT NOT NULL) STRICT;";

/*
 * What a cluster is, for whoever starts its VMs. made: something of it may be outside of this
 * database, so that it has to be ended before it is released; ending: that has begun.
 */
static const char version_4[] =
	"ALTER TABLE cluster ADD COLUMN environment TEXT;"
	"ALTER TABLE cluster ADD COLUMN made INTEGER NOT NULL DEFAULT 0 CHECK (made IN (0, 1));"
	"ALTER TABLE cluster ADD COLUMN ending INTEGER NOT NULL DEFAULT 0"
	" CHECK (ending IN (0, 1));"
	"ALTER TABLE vm ADD COLUMN address TEXT;"
	/* nodes: a JSON list of addresses, this one's first. */
	"CREATE TABLE network ("
	" cluster TEXT PRIMARY KEY REFERENCES cluster ON DELETE CASCADE,"
	" vni INTEGER NOT NULL UNIQUE, subnet TEXT NOT NULL, nodes TEXT NOT NULL)"
	" STRICT, WITHOUT ROWID;";

/* A core for each vCPU: of a shared VM, so many have to stay. */
static const char version_5[] =
	"ALTER TABLE vm ADD COLUMN cores INTEGER NOT NULL DEFAULT 0 CHECK (cores IN (0, 1));";

/* The digest of the image that it was admitted with; null: none was named. */
static const char version_6[] = "ALTER TABLE cluster ADD COLUMN image TEXT;";

/* Which cores, memory and devices a VM had, as JSON: account_begin(). Null: before this version. */
static const char version_7[] = "ALTER TABLE usage ADD COLUMN held TEXT;";

/*
 * save_every: seconds, so often a rule of this node's policy wants a checkpoint; null: none does.
 * saved: when the last one was made here, or else its first VM began to run here.
 */
static const char version_8[] = "ALTER TABLE cluster ADD COLUMN save_every INTEGER;"
				"ALTER TABLE cluster ADD COLUMN saved INTEGER;";

const char *const store_schema[] = {version_1, version_2, version_3, version_4,
				    version_5, version_6, version_7, version_8};
const unsigned store_schema_version = ARRAY_SIZE(store_schema);
