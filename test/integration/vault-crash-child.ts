/* Works on a vault until it is killed: backups, deletions and collections in an order that its seed decides. Every checkpoint carries the digest of
 * what it must contain, so whoever opens the vault later can judge it. */
import { createHash } from 'node:crypto'
import { Fault } from '#base/fault.ts'
import { backUp, changeBlocks, makeImage, randomFrom, reopen } from './vault-kit.ts'

const [directory = '', seedText = '0'] = process.argv.slice(2)
const random = randomFrom(Number(seedText))
const vault = await reopen(directory)
const image = makeImage(40 * 65_536 + 1234, random)
process.stdout.write('ready\n')

/** What a race with another process, or with its collector's impatience, may answer. */
const EXPECTED = new Set([
  'CHECKPOINT_UNKNOWN',
  'BACKUP_REVOKED',
  'COLLECTOR_BUSY',
  'OBJECT_MISSING',
])

for (let round = 0; ; round++) {
  try {
    const list = await vault.checkpoints()
    const dice = random()
    if (dice < 0.55) {
      changeBlocks(image, 0.3, random)
      const sha256 = createHash('sha256').update(image).digest('hex')
      const parent = list[Math.floor(random() * list.length * 2)]?.id
      const labels = { sha256 }
      const packBytes = 256 * 1024
      await backUp(vault, image, { labels, packBytes, ...(parent === undefined ? {} : { parent }) })
      process.stdout.write('backup\n')
    } else if (dice < 0.8) {
      const one = list[Math.floor(random() * list.length)]
      if (one !== undefined && list.length > 3) await vault.forget(one.id)
    } else {
      // Impatient on purpose: running backups are taken for dead and have to cope.
      await vault.collect({ graceMs: 0, leaseExpiryMs: 400, usedMin: 0.8 })
      process.stdout.write('collect\n')
    }
  } catch (error) {
    if (!(error instanceof Fault) || !EXPECTED.has(error.code)) throw error
  }
}
