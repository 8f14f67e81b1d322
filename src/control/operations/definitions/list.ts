import type { OperationKind } from '../operation.ts'
import { backupServer, runPolicy } from './backup/backup.ts'
import { backupUpkeep } from './backup/backup-upkeep.ts'
import { verifyCheckpoint } from './backup/checkpoint-verification.ts'
import { attachCheckpoint, detachCheckpoint } from './backup/checkpoint-attachment.ts'
import { deleteItem } from './backup/checkpoint-deletion.ts'
import { deleteDrill } from './drills/drill-end.ts'
import { createDrill } from './drills/drills.ts'
import { createDrill1, deleteDrill1 } from './drills/drills-of-old.ts'
import { failoverGroup } from './protection/failover.ts'
import {
  createGroup,
  deleteGroup,
  reprotectGroup,
  reverseGroup,
  startGroup,
  stopGroup,
} from './protection/groups.ts'
import { attachPair, detachPair } from './instances/instance-disks.ts'
import { addNic, deleteNic, resizeInstance } from './instances/instance-nics.ts'
import {
  createInstance,
  createInstances,
  deleteInstance,
  deleteInstances,
} from './instances/instances.ts'
import { failoverPausedGroup } from './protection/paused-failover.ts'
import { gatherPairs, regroupPairs } from './protection/consistency-groups.ts'
import { connectPair } from './protection/lone-pairs.ts'
import { createPair, deletePair, expandPair } from './protection/pairs.ts'
import { rebuildPair } from './protection/rebuild.ts'
import { recoverGroup, recoverServer } from './recovery/recovery.ts'
import { replicateItem } from './backup/replica.ts'
import { sweepReplicas } from './backup/replica-retention.ts'
import { restoreItem } from './backup/restore.ts'
import { restoreVolumes } from './backup/restore-volumes.ts'
import { deleteServer, deleteServers } from './servers/server-deletion.ts'
import { attachDisk, detachDisk } from './servers/server-disks.ts'
import {
  createServer,
  createServers,
  powerServers,
  rebootServer,
  startServer,
  stopServer,
} from './servers/servers.ts'
import { createSnapshot, deleteSnapshot, rollbackSnapshot } from './volumes/snapshots.ts'
import { verifyGroup } from './protection/verify.ts'
import { createFilledVolume } from './volumes/volume-filling.ts'
import {
  createVolume,
  createVolumes,
  deleteVolume,
  extendVolume,
  limitVolume,
  retypeVolume,
} from './volumes/volumes.ts'

/** Every kind that may stand in the database. Names and versions are a kept format: none is removed before a major release. */
export const operationKinds: readonly OperationKind<never>[] = [
  createVolume,
  createVolumes,
  createFilledVolume,
  deleteVolume,
  extendVolume,
  retypeVolume,
  limitVolume,
  createGroup,
  deleteGroup,
  startGroup,
  reprotectGroup,
  stopGroup,
  reverseGroup,
  failoverGroup,
  recoverGroup,
  recoverServer,
  createDrill,
  deleteDrill,
  createDrill1,
  deleteDrill1,
  createPair,
  expandPair,
  deletePair,
  connectPair,
  gatherPairs,
  failoverPausedGroup,
  regroupPairs,
  rebuildPair,
  verifyGroup,
  createSnapshot,
  deleteSnapshot,
  rollbackSnapshot,
  createServer,
  createServers,
  deleteServer,
  deleteServers,
  powerServers,
  startServer,
  stopServer,
  rebootServer,
  attachDisk,
  detachDisk,
  createInstance,
  createInstances,
  deleteInstance,
  deleteInstances,
  attachPair,
  detachPair,
  addNic,
  deleteNic,
  resizeInstance,
  backupServer,
  runPolicy,
  deleteItem,
  restoreItem,
  restoreVolumes,
  attachCheckpoint,
  detachCheckpoint,
  replicateItem,
  sweepReplicas,
  backupUpkeep,
  verifyCheckpoint,
]
