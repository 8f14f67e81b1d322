/* Question: how long does a list of 1,000 servers take?
 *
 * The public API over SQLite in this process, with 1,000 rows of servers that nobody made, each with a disk and a NIC. Every list is asked for 200
 * times, one after the other, by a caller with a token; the figure is the 99th percentile from the request to the last byte of the answer, without
 * sockets. Bound: 50 ms.
 *
 * What would make it meaningless: other processes (weighed; a batch that was disturbed is repeated, and marked when that did not help); lists
 * that are shorter than asked for (checked). */
import { tmpdir } from 'node:os'
import { findImageByName } from '#control/resources/images.ts'
import { ApiLab } from '../test/support/api.ts'
import { insertServers } from '../test/support/server-rows.ts'
import { disturbedOf, Lines, round, undisturbed, weighed } from './lib/lines.ts'
import { machineFacts } from './lib/machine.ts'

const SERVERS = 1_000
const REQUESTS = 200
const WARM_UP = 20
const BOUND_MS = 50

export async function benchLists(options: { readonly json: boolean }): Promise<void> {
  const lines = new Lines(options.json, machineFacts(tmpdir()))
  const lab = await ApiLab.start()
  try {
    const headers = { 'x-auth-token': await lab.adminToken(), host: '127.0.0.1:7410' }
    const project = lab.admin.project_id
    const image = await findImageByName(lab.store.db, 'holdfast-tiny')
    await lab.call({ url: `/v1/${project}/vpcs`, headers })
    await insertServers(lab.store, project, SERVERS, image?.id ?? '')
    for (const [name, path, count] of [
      ['servers, everything about each', `/v2.1/${project}/servers/detail`, SERVERS],
      ['servers, names', `/v2.1/${project}/servers`, SERVERS],
      ['cloudservers, 1000 on a page', `/v1/${project}/cloudservers/detail?limit=1000`, SERVERS],
      ['cloudservers, 25 on a page', `/v1/${project}/cloudservers/detail`, 25],
    ] as const) {
      const ask = async () => {
        const startMs = performance.now()
        const reply = await lab.app.inject({ method: 'GET', url: path, headers })
        const ms = performance.now() - startMs
        if (reply.statusCode !== 200) throw new Error(reply.body)
        return { ms, body: reply.body }
      }
      const { body } = await ask()
      const { servers } = JSON.parse(body) as { servers: unknown[] }
      if (servers.length !== count) throw new Error(`${servers.length} servers`)
      const sample = await undisturbed(() =>
        weighed([], async () => {
          for (let i = 0; i < WARM_UP; i++) await ask()
          const times: number[] = []
          for (let i = 0; i < REQUESTS; i++) times.push((await ask()).ms)
          return times.toSorted((a, b) => a - b)
        }),
      )
      const at = (share: number) => sample.value[Math.ceil(REQUESTS * share) - 1] ?? Number.NaN
      lines.show(
        {
          case: name,
          figure: round(at(0.99), 1),
          unit: 'ms',
          bound: BOUND_MS,
          samples: 1,
          disturbed: disturbedOf([sample]),
          also: { median: round(at(0.5), 1), kib: Math.round(body.length / 1024) },
        },
        'most',
      )
    }
  } finally {
    await lab.stop()
  }
}
