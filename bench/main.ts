import { tmpdir } from 'node:os'
import { parseArgs } from 'node:util'
import { LOADS, type LoadName } from './lib/fio.ts'
import { benchNbd } from './nbd.ts'
import { benchReplication } from './replication.ts'
import { benchVault } from './vault.ts'
import { benchSnapshots } from './snapshots.ts'

const USAGE = `npm run bench -- QUESTION [options]

  replication    a replicated volume against QEMU's synchronous mirror, link unencrypted and with mTLS
  vault          backup and restore of a 1 GiB image against restic and borg
  nbd            our NBD server without replication against nbdkit and qemu-nbd
  snapshots      what taking a snapshot and preserving before-images cost the writers

  --json         one line of JSON per case
  --pairs N      rounds of which the median counts (default 5)
  --runtime S    seconds per sample (default 3)
  --directory D  snapshots: where, for the file system (default the temporary directory)
  --loads A,B    ${Object.keys(LOADS).join(', ')} (default all)
`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    pairs: { type: 'string', default: '5' },
    runtime: { type: 'string', default: '3' },
    loads: { type: 'string', default: Object.keys(LOADS).join(',') },
    directory: { type: 'string', default: tmpdir() },
  },
})
const loads = values.loads.split(',').filter((name): name is LoadName => name in LOADS)
const options = {
  json: values.json,
  pairs: Number(values.pairs),
  runtimeS: Number(values.runtime),
  loads,
}
const question = positionals[0]
if (question === 'replication') await benchReplication(options)
else if (question === 'nbd') await benchNbd(options)
else if (question === 'vault') await benchVault(options)
else if (question === 'snapshots') {
  await benchSnapshots({ ...options, directory: values.directory })
} else {
  process.stdout.write(USAGE)
  process.exitCode = question === undefined ? 0 : 2
}
