import type { OperationKind } from '../operation.ts'
import { backupServer, runPolicy } from './backup.ts'
import { backupUpkeep } from './backup-upkeep.ts'
import { verifyCheckpoint } from './checkpoint-verification.ts'
import { attachCheckpoint, detachCheckpoint } from './checkpoint-attachment.ts'
import { deleteItem } from './checkpoint-deletion.ts'
import { deleteDrill } from './drill-end.ts'
import { createDrill } from './drills.ts'
import { failoverGroup } from './failover.ts'
import {
  createGroup,
  deleteGroup,
  reprotectGroup,
  reverseGroup,
  startGroup,
  stopGroup,
} from './groups.ts'
import { attachPair, detachPair } from './instance-disks.ts'
import { addNic, deleteNic, resizeInstance } from './instance-nics.ts'
import { createInstance, createInstances, deleteInstance, deleteInstances } from './instances.ts'
import { failoverPausedGroup } from './paused-failover.ts'
import { gatherPairs, regroupPairs } from './consistency-groups.ts'
import { connectPair } from './lone-pairs.ts'
import { createPair, deletePair, expandPair } from './pairs.ts'
import { rebuildPair } from './rebuild.ts'
import { recoverGroup, recoverServer } from './recovery.ts'
import { replicateItem } from './replica.ts'
import { sweepReplicas } from './replica-retention.ts'
import { restoreItem } from './restore.ts'
import { restoreVolumes } from './restore-volumes.ts'
import { deleteServer, deleteServers } from './server-deletion.ts'
import { attachDisk, detachDisk } from './server-disks.ts'
import {
  createServer,
  createServers,
  powerServers,
  rebootServer,
  startServer,
  stopServer,
} from './servers.ts'
import { createSnapshot, deleteSnapshot, rollbackSnapshot } from './snapshots.ts'
import { verifyGroup } from './verify.ts'
import { createFilledVolume } from './volume-filling.ts'
import {
  createVolume,
  createVolumes,
  deleteVolume,
  extendVolume,
  limitVolume,
  retypeVolume,
} from './volumes.ts'

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
