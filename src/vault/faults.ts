import { fault, isFault } from '#base/fault.ts'

export const VAULT_MISSING = fault({
  code: 'VAULT_MISSING',
  retry: 'never',
  text: 'There is no vault here.',
  hint: 'Check the address, or make a vault with `holdfast vault init`.',
})

export const VAULT_EXISTS = fault({
  code: 'VAULT_EXISTS',
  retry: 'never',
  text: 'There is a vault here already. Nothing was changed.',
  hint: 'Use it, or choose an empty place.',
})

export const VAULT_VERSION = fault({
  code: 'VAULT_VERSION',
  retry: 'never',
  text: 'The vault was made by a newer release.',
  hint: 'Use the release that wrote it, or a newer one.',
})

export const VAULT_KEY_WRONG = fault({
  code: 'VAULT_KEY_WRONG',
  retry: 'never',
  text: 'No key slot of the vault opens with this passphrase or key file.',
  hint: 'Check the passphrase or the file. Damaged key slots are named above if there are any.',
})

export const VAULT_KEY_REFUSED = fault({
  code: 'VAULT_KEY_REFUSED',
  retry: 'never',
  text: 'The keys of the vault were not changed.',
  hint: 'A vault keeps at least one key slot; `holdfast vault key list` shows them.',
})

/** The detail names the object, and where known the kind, the slot and the chunk. */
export const VAULT_DAMAGED = fault({
  code: 'VAULT_DAMAGED',
  retry: 'never',
  text: 'The object is not what was written.',
  hint: '`holdfast vault verify --data` names everything that is damaged, and which checkpoints need it.',
})

export const OBJECT_MISSING = fault({
  code: 'OBJECT_MISSING',
  retry: 'never',
  text: 'The object is not in the store.',
  hint: '`holdfast vault verify` names every object that is missing.',
})

export const VAULT_STORE_FAILED = fault({
  code: 'VAULT_STORE_FAILED',
  retry: 'later',
  text: 'The store of the vault did not carry out the request.',
  hint: 'Look at the cause: network, permissions, space.',
})

export const VAULT_STORE_REFUSED = fault({
  code: 'VAULT_STORE_REFUSED',
  retry: 'later',
  text: 'The store of the vault refuses this to whoever asks with this access key.',
  hint: 'Check the key, whether it has ended, its rights on the bucket, and the clock of this machine.',
})

export const VAULT_STORE_UNFIT = fault({
  code: 'VAULT_STORE_UNFIT',
  retry: 'never',
  text: 'A vault would not be safe there, so nothing was stored.',
  hint: 'Use a server that honours conditional puts. A bucket that keeps versions needs object lock without default retention, and HOLDFAST_S3_OBJECT_LOCK=1.',
})

export const OBJECT_RETAINED = fault({
  code: 'OBJECT_RETAINED',
  retry: 'later',
  text: 'The store keeps the object until its retention ends, whoever asks.',
  hint: 'Nothing needs to be done: a later collection deletes it.',
})

export const OBJECT_HELD = fault({
  code: 'OBJECT_HELD',
  retry: 'later',
  text: 'A legal hold keeps the object in the store, whoever asks.',
  hint: 'It has no end of its own: whoever set it takes it off, and a later collection deletes the object.',
})

export const CHECKPOINT_UNKNOWN = fault({
  code: 'CHECKPOINT_UNKNOWN',
  retry: 'never',
  text: 'The vault has no such checkpoint, or no such volume in it.',
  hint: '`holdfast vault ls` lists the checkpoints, `holdfast vault show` their volumes.',
})

export const CHECKPOINT_LOCKED = fault({
  code: 'CHECKPOINT_LOCKED',
  retry: 'later',
  text: 'The checkpoint is locked and stays until its lock ends.',
  hint: 'Nobody can shorten a lock. `holdfast vault show` tells when it ends.',
})

export const BACKUP_REVOKED = fault({
  code: 'BACKUP_REVOKED',
  retry: 'now',
  text: 'A collector took the backup for dead, because its lease had not been renewed for too long. Nothing was committed.',
  hint: 'Start the backup again; what it stored is used again as far as it is still there.',
})

export const BACKUP_MISUSED = fault({
  code: 'BACKUP_MISUSED',
  retry: 'never',
  text: 'The backup was given something that it cannot take.',
  hint: 'Blocks are whole, aligned and inside the volume; the parent has a volume of this id that is not larger.',
})

export const COLLECTOR_BUSY = fault({
  code: 'COLLECTOR_BUSY',
  retry: 'later',
  text: 'Another collector works on this vault.',
  hint: 'Wait for it. One that died is taken over when its lease has run out.',
})

export const RESTORE_TARGET_EXISTS = fault({
  code: 'RESTORE_TARGET_EXISTS',
  retry: 'never',
  text: 'The target exists. Nothing was written.',
  hint: 'Name another file, or give --overwrite.',
})

export const STORE_ADDRESS = fault({
  code: 'STORE_ADDRESS',
  retry: 'never',
  text: 'This is no place for a vault.',
  hint: 'Name a directory, or s3://BUCKET/PREFIX with the access key in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.',
})

/** Something is not there, or not what was written. It may have been deleted or rewritten since it was looked for. */
export const isLacking = (error: unknown): boolean =>
  isFault(error, OBJECT_MISSING) || isFault(error, VAULT_DAMAGED)
