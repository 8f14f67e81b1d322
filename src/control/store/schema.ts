import type { CheckpointTables } from './tables/checkpoints.ts'
import type { DrillTables } from './tables/drills.ts'
import type { IdentityTables } from './tables/identity.ts'
import type { MetaTables } from './tables/meta.ts'
import type { NetworkTables } from './tables/networks.ts'
import type { OperationTables } from './tables/operations.ts'
import type { RecoveryTables } from './tables/recovery.ts'
import type { ResourceTables } from './tables/resources.ts'
import type { RpoTables } from './tables/rpo.ts'
import type { ServerTables } from './tables/servers.ts'
import type { SiteTables } from './tables/sites.ts'
import type { SnapshotTables } from './tables/snapshots.ts'

/* Every table of the state database. Each owner describes its tables in `tables/`, creates them in `migrations/`
 * and adds its interface here.
 *
 * Conventions that make one schema right for SQLite and PostgreSQL:
 *
 *   what              column type   TypeScript   note
 *   id, name, text    text          string       ids in the form the API shows
 *   yes or no         integer       Bit          0 or 1; SQLite refuses to bind true and false
 *   count, index      integer       number       32 bits on PostgreSQL
 *   bytes, time       bigint        number       always below 2^53; reading a larger one throws
 *   structured data   text          string       JSON, through toJson and fromJson of json.ts
 *   point in time     bigint        number       wall clock, milliseconds since 1970; column name ends in _at
 *   fraction          double precision number
 *
 * CLOCK_BOOTTIME readings end in _boot_ms, are double precision and stand beside the boot id they belong to. Columns
 * are snake_case; absent values are null, never ''. No column has a default: the code that inserts a row says all of it.
 */
export interface Database
  extends CheckpointTables,
    DrillTables,
    IdentityTables,
    MetaTables,
    NetworkTables,
    OperationTables,
    RecoveryTables,
    ResourceTables,
    RpoTables,
    ServerTables,
    SiteTables,
    SnapshotTables {}
