import { fault } from '#base/fault.ts'

export const NO_VAULT = fault({
  code: 'NO_VAULT',
  retry: 'never',
  text: 'This agent has no vault.',
  hint: 'Set vault.place and vault.keyFile in the configuration of the agents of this region, and start them again.',
})

export const VAULT_GONE = fault({
  code: 'VAULT_GONE',
  retry: 'later',
  text: 'The vault that this agent has used is not where it was.',
  hint: 'Mount what holds it. If it is gone for good, delete the file that the error names at each agent of the region: the next backup makes a new vault, which knows none of the old backups.',
})

export const WORK_UNKNOWN = fault({
  code: 'WORK_UNKNOWN',
  retry: 'never',
  text: 'No work of this name was started here, or it ended long ago.',
  hint: 'Start it; what the vault holds already is not stored again.',
})

export const BACKUP_REFUSED = fault({
  code: 'BACKUP_REFUSED',
  retry: 'never',
  text: 'The request does not say what to back up.',
  hint: 'Name each volume once, and give each a name of its own.',
})

export const COPY_BEHIND = fault({
  code: 'COPY_BEHIND',
  retry: 'never',
  text: 'The copy at this site may lack what the other site has acknowledged.',
  hint: 'Back up at the site that writes, or here again when both are in sync.',
})

export const SNAPSHOT_LOST = fault({
  code: 'SNAPSHOT_LOST',
  retry: 'never',
  text: 'The snapshot that a backup reads is not whole any more.',
  hint: 'Free space at the site, and make another backup; what the vault holds already is not stored again.',
})

export const RESTORE_CUT_OFF = fault({
  code: 'RESTORE_CUT_OFF',
  retry: 'later',
  text: 'The volume could not be written to its end, and holds a part of the checkpoint.',
  hint: 'Restore again, to the site that may write now; until then the volume is of no use.',
})

export const TOO_MANY_ATTACHED = fault({
  code: 'TOO_MANY_ATTACHED',
  retry: 'later',
  text: 'As many checkpoints are attached at this site as may be.',
  hint: 'Detach one first.',
})

export const ATTACHMENT_ENDED = fault({
  code: 'ATTACHMENT_ENDED',
  retry: 'never',
  text: 'This attachment of a checkpoint was ended before it came about.',
  hint: 'Attach the backup again.',
})

export const NO_REPLICA_DOOR = fault({
  code: 'NO_REPLICA_DOOR',
  retry: 'never',
  text: 'This agent takes no replicas from other regions.',
  hint: 'Set replicaListen in its configuration, and start it again.',
})

export const TICKET_TOO_LARGE = fault({
  code: 'TICKET_TOO_LARGE',
  retry: 'never',
  text: 'The labels of a replica do not fit into its ticket.',
  hint: 'Give it fewer or shorter labels: 2,900 bytes of JSON in all.',
})

export const TICKET_REFUSED = fault({
  code: 'TICKET_REFUSED',
  retry: 'later',
  text: 'The other region does not know the ticket, or it has ended.',
  hint: 'Start the replica again: it gets another ticket, and goes on where it was.',
})

export const TRANSFER_REFUSED = fault({
  code: 'TRANSFER_REFUSED',
  retry: 'never',
  text: 'The other region does not take what it was sent.',
  hint: 'BLOCK_SIZE in the reason: the vaults have blocks of different sizes. KEY_REFUSED: that vault has another key under this name, or took over too many. Anything else: compare the releases.',
})

export const TRANSFER_BUSY = fault({
  code: 'TRANSFER_BUSY',
  retry: 'later',
  text: 'The other region takes as many replicas as it can, or has ended this transfer.',
  hint: 'It is tried again; what has arrived is not sent again.',
})

export const REPLICA_VAULT_FAILED = fault({
  code: 'REPLICA_VAULT_FAILED',
  retry: 'later',
  text: 'The vault of the other region cannot take the replica.',
  hint: 'Mend there what the reason names: space, the key file, or the rights of the access key. Then start the replica again; what has arrived is not sent again.',
})

export const REPLICA_UNREACHABLE = fault({
  code: 'REPLICA_UNREACHABLE',
  retry: 'later',
  text: 'The other region could not be reached for too long.',
  hint: 'Look at the line and at the agent there; then start the replica again. What has arrived is not sent again.',
})
