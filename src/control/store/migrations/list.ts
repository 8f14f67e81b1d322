import { ground } from './0001-ground.ts'
import { identity } from './0002-identity.ts'
import { resources } from './0003-resources.ts'
import { arbitration } from './0004-arbitration.ts'
import { snapshots } from './0005-snapshots.ts'
import { operationOrder } from './0006-operation-order.ts'
import { servers } from './0007-servers.ts'
import { snapshotTexts } from './0008-snapshot-texts.ts'
import { drills } from './0009-drills.ts'
import { recovery } from './0010-recovery.ts'
import { replicationForms } from './0011-replication-forms.ts'
import { volumeLimits } from './0012-volume-limits.ts'
import { checkpoints } from './0013-checkpoints.ts'
import { longLists } from './0014-long-lists.ts'
import { drillRuns } from './0015-drill-runs.ts'
import { recoveryAttempts } from './0016-recovery-attempts.ts'
import { shownReplications } from './0017-shown-replications.ts'
import { backupWorks } from './0018-backup-works.ts'
import { backupForms } from './0019-backup-forms.ts'
import { operationKindsIndex } from './0020-operation-kinds.ts'
import type { Migration } from './migration.ts'

/* Migrations in the order in which they run. A released one is never edited: add another.
 *
 * What a migration runs is compared with what the database remembers of it, so it must be deterministic: no time, no
 * chance, nothing read from the environment. Both engines run the same steps where they can.
 */
export const migrations: readonly Migration[] = [
  ground,
  identity,
  resources,
  arbitration,
  snapshots,
  operationOrder,
  servers,
  snapshotTexts,
  drills,
  recovery,
  replicationForms,
  volumeLimits,
  checkpoints,
  longLists,
  drillRuns,
  recoveryAttempts,
  shownReplications,
  backupWorks,
  backupForms,
  operationKindsIndex,
]
