import { Readable } from 'node:stream'
import Type, { type Static } from 'typebox'
import { findGroup } from '#control/resources/groups.ts'
import { refusalCode } from '#control/sites/client.ts'
import {
  DIVERGENCE_READ_BYTES_MAX,
  type DivergenceInfo,
  DivergenceRange,
  DivergenceVolume,
} from '#wire/site/snapshots.ts'
import type { Api } from '../http/dialect.ts'
import { auditTarget, projectOf } from '../http/request.ts'
import { ErrorBody, refuse } from './errors.ts'
import { unknownGroup } from './groups.ts'
import { ById, describe, nullable, Time, timeOf } from './route.ts'
import type { NativeServices } from './services.ts'
import { atSite } from './site-refusals.ts'

/* Divergence records: what a site had acknowledged alone before the other site's data came back over it. They lie at the agents and are asked
 * for there, in the name of the caller's project; a record of another project does not exist for it. */

const View = Type.Object({
  id: Type.String(),
  group: Type.String(),
  site: Type.String({ description: 'The site whose writes these are, and where they are kept.' }),
  winner: Type.String({ description: 'The site whose data came over them.' }),
  base_epoch: Type.Integer(),
  epoch: Type.Integer(),
  at: Time,
  why: Type.String(),
  state: Type.String({
    description: 'keeping: on its way · kept · lost: it could not be kept, `reason` says why',
  }),
  reason: nullable(Type.String()),
  bytes: Type.Number(),
  volumes: Type.Array(DivergenceVolume),
})
type View = Static<typeof View>

const viewOf = (one: DivergenceInfo): View => ({
  id: one.divergence,
  group: one.session,
  site: one.site,
  winner: one.winner,
  base_epoch: one.base_epoch,
  epoch: one.epoch,
  at: timeOf(one.at),
  why: one.why,
  state: one.state,
  reason: one.reason,
  bytes: one.volumes.reduce((sum, { bytes }) => sum + bytes, 0),
  volumes: one.volumes,
})

/** Pieces that are read ahead of a download. */
const READ_AHEAD = 4
/** Longest download of one request: a client asks range by range. */
const DATA_BYTES_MAX = 16 * 1024 * 1024 * 1024

export function divergenceRoutes(app: Api, services: NativeServices): void {
  const { store, commands, sites } = services

  /** From all sites. A site that cannot be asked is named, because what it has must not seem to be gone. */
  async function listed(
    owner: string,
    session?: string,
  ): Promise<{ found: DivergenceInfo[]; silent: string[] }> {
    const found: DivergenceInfo[] = []
    const silent: string[] = []
    await Promise.all(
      sites.map(async (site) => {
        try {
          const request = session === undefined ? { owner } : { owner, session }
          const { divergences } = await commands.command(site, 'divergence.list', request)
          found.push(...divergences)
        } catch (error) {
          // A site without a snapshot store keeps none.
          if (refusalCode(error) !== null) return
          silent.push(site)
        }
      }),
    )
    return { found: found.sort((a, b) => b.at - a.at), silent: silent.sort() }
  }

  const Listed = Type.Object({
    divergences: Type.Array(View),
    silent_sites: Type.Array(Type.String(), {
      description: 'Sites that could not be asked: they may have more.',
    }),
  })
  app.get(
    '/api/v1/divergences',
    {
      schema: describe('List the divergence records of the project', 'divergences', Listed, {}),
    },
    async (request) => {
      const { found, silent } = await listed(projectOf(request))
      return { divergences: found.map(viewOf), silent_sites: silent }
    },
  )
  app.get(
    '/api/v1/groups/:id/divergences',
    {
      schema: describe('List the divergence records of a group', 'divergences', Listed, {
        params: ById,
      }),
    },
    async (request) => {
      const project = projectOf(request)
      const group = await findGroup(store.db, project, request.params.id)
      if (group === undefined) throw unknownGroup()
      const { found, silent } = await listed(project, group.id)
      return { divergences: found.map(viewOf), silent_sites: silent }
    },
  )

  async function own(owner: string, id: string): Promise<DivergenceInfo> {
    const { found, silent } = await listed(owner)
    const record = found.find((one) => one.divergence === id)
    if (record !== undefined) return record
    if (silent.length > 0) {
      throw refuse(
        503,
        'SITE_UNREACHABLE',
        `There is no such divergence record at the sites that answer; ${silent.join(', ')} did not.`,
        'Repeat when all sites answer.',
      )
    }
    throw refuse(
      404,
      'DIVERGENCE_UNKNOWN',
      'There is no such divergence record in the project.',
      'List the divergence records.',
    )
  }

  app.get(
    '/api/v1/divergences/:id',
    {
      schema: describe(
        'Show a divergence record',
        'divergences',
        Type.Object({ divergence: View }),
        {
          params: ById,
        },
      ),
    },
    async (request) => ({
      divergence: viewOf(await own(projectOf(request), request.params.id)),
    }),
  )

  const Volume = Type.String({ minLength: 1, maxLength: 64, pattern: '^[0-9a-zA-Z-]+$' })
  app.get(
    '/api/v1/divergences/:id/ranges',
    {
      schema: describe(
        'List the ranges of one volume that are kept, in order',
        'divergences',
        Type.Object({
          ranges: Type.Array(DivergenceRange),
          next: nullable(Type.Number({ description: '`from` of the next page; null: no more.' })),
        }),
        {
          params: ById,
          querystring: Type.Object({
            volume: Volume,
            from: Type.Optional(Type.Integer({ minimum: 0, default: 0 })),
            limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000, default: 1_000 })),
          }),
        },
      ),
    },
    async (request) => {
      const owner = projectOf(request)
      const { volume, from = 0, limit = 1_000 } = request.query
      const { divergence, site } = await own(owner, request.params.id)
      const { ranges } = await atSite(() =>
        commands.command(site, 'divergence.show', { divergence, owner, volume, from, limit }),
      )
      const last = ranges.length < limit ? undefined : ranges.at(-1)
      return { ranges, next: last === undefined ? null : last.offset + last.length }
    },
  )

  app.get(
    '/api/v1/divergences/:id/data',
    {
      // Whoever reads it reads the disk.
      config: { role: 'operator' },
      schema: {
        summary: 'Download bytes of a kept range as they were at the losing site',
        tags: ['divergences'],
        params: ById,
        querystring: Type.Object({
          volume: Volume,
          offset: Type.Integer({ minimum: 0 }),
          length: Type.Integer({ minimum: 1, maximum: DATA_BYTES_MAX }),
        }),
        response: {
          200: {
            description: 'The bytes.',
            content: { 'application/octet-stream': { schema: Type.Any() } },
          },
          default: ErrorBody,
        },
      },
    },
    async (request, reply) => {
      const owner = projectOf(request)
      const { volume, offset, length } = request.query
      const { divergence, site } = await own(owner, request.params.id)
      const read = async (at: number): Promise<Buffer> => {
        const size = Math.min(DIVERGENCE_READ_BYTES_MAX, offset + length - at)
        const { data } = await atSite(() =>
          commands.command(site, 'divergence.read', {
            divergence,
            owner,
            volume,
            offset: at,
            length: size,
          }),
        )
        return Buffer.from(data, 'base64')
      }
      // Refusals are answered as such: the head goes out with the first piece in hand.
      const first = await read(offset)
      return await reply
        .header('content-length', String(length))
        .type('application/octet-stream')
        .send(Readable.from(pieces(first, offset, offset + length, read)))
    },
  )

  app.delete(
    '/api/v1/divergences/:id',
    {
      config: { audit: 'divergence.delete' },
      schema: describe(
        'Delete a divergence record for good',
        'divergences',
        Type.Object({ divergence: View }),
        {
          params: ById,
        },
      ),
    },
    async (request) => {
      const owner = projectOf(request)
      const record = await own(owner, request.params.id)
      auditTarget(request, record.divergence, { group: record.session, site: record.site })
      const { divergence, site } = record
      await atSite(() => commands.command(site, 'divergence.delete', { divergence, owner }))
      return { divergence: viewOf(record) }
    },
  )
}

/** In order, a few of them asked for ahead. */
async function* pieces(
  first: Buffer,
  from: number,
  end: number,
  read: (at: number) => Promise<Buffer>,
): AsyncGenerator<Buffer> {
  yield first
  let at = from + first.length
  const ahead: Promise<Buffer>[] = []
  const fill = () => {
    while (ahead.length < READ_AHEAD && at < end) {
      const piece = read(at)
      // Its failure is met when its turn comes.
      piece.catch(() => undefined)
      ahead.push(piece)
      at += DIVERGENCE_READ_BYTES_MAX
    }
  }
  fill()
  for (let next = ahead.shift(); next !== undefined; next = ahead.shift()) {
    yield await next
    fill()
  }
}
