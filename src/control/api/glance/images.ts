import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { findImage, listImages } from '#control/resources/images.ts'
import type { ImageRow } from '#control/store/tables/servers.ts'
import type { Api } from '../http/dialect.ts'
import { originOf } from '../http/request.ts'
import { pageOf, type Query, valueOf, valuesOf } from '../http/page.ts'
import type { GlanceServices } from './services.ts'
import { refuse } from './errors.ts'

/* The images of the region, the same for every project. Clients come by three roads: the catalogue's address with `/v2`
 * behind it, the host with `/v2` behind it, and the compute service's address. */

const ImagePath = Type.Object({ image_id: Type.String() })
const GIB = 1_073_741_824

const imageTime = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}Z`

/** `size` is what a disk made from it needs at least: the file itself lies at the sites, packed differently at each. */
const imageObject = (row: ImageRow) => ({
  id: row.id,
  name: row.name,
  status: 'active',
  visibility: 'public',
  disk_format: 'raw',
  container_format: 'bare',
  min_disk: row.min_disk_gb,
  min_ram: row.min_memory_mb,
  size: row.min_disk_gb * GIB,
  virtual_size: row.min_disk_gb * GIB,
  checksum: null,
  owner: OWNER,
  protected: true,
  tags: [],
  created_at: imageTime(row.created_at),
  updated_at: imageTime(row.created_at),
  self: `/v2/images/${row.id}`,
  file: `/v2/images/${row.id}/file`,
  schema: '/v2/schemas/image',
})

/** Images belong to nobody's project. */
const OWNER = 'holdfast'

const cloudImageObject = (row: ImageRow) => ({
  ...imageObject(row),
  __imagetype: 'gold',
  __image_size: String(row.min_disk_gb * GIB),
  __image_source_type: 'uds',
  __isregistered: 'true',
  __os_type: 'Linux',
  __os_bit: '64',
  __os_version: row.os_version,
  __platform: row.os_version.replace(/\s.*$/s, ''),
  __description: '',
  __support_kvm: 'true',
  virtual_env_type: 'FusionCompute',
  max_ram: '',
  enterprise_project_id: '0',
  hw_firmware_type: 'bios',
  architecture: 'x86',
})

export function imageRoutes(app: Api, services: GlanceServices): void {
  const { db } = services.store

  app.get('/image', { config: { access: 'open' } }, async (request) => ({
    versions: [
      {
        id: 'v2.9',
        status: 'CURRENT',
        links: [{ rel: 'self', href: `${originOf(request, services)}/image/v2/` }],
      },
    ],
  }))

  for (const base of ['/image/v2', '/v2']) {
    app.get(`${base}/images`, async (request) => {
      const { page, more } = select((await listImages(db)).map(imageObject), request)
      const last = page.at(-1)
      return {
        images: page,
        first: '/v2/images',
        schema: '/v2/schemas/images',
        // Clients put it behind the service's address, so it never has the first part of the path.
        ...(more && last !== undefined ? { next: nextPath(request, last.id) } : {}),
      }
    })
    app.get(`${base}/images/:image_id`, { schema: { params: ImagePath } }, async (request) => {
      const { image_id: id } = request.params
      const row = await findImage(db, id)
      if (row === undefined) throw refuse(404, `No image found with ID ${id}`)
      return imageObject(row)
    })
  }

  for (const path of [
    '/image/v2/cloudimages',
    '/v2/cloudimages',
    '/v2.1/:project_id/cloudimages',
  ]) {
    app.get(path, async (request) => ({
      images: select((await listImages(db)).map(cloudImageObject), request).page,
    }))
  }
}

function nextPath(request: FastifyRequest, marker: string): string {
  const next = new URL(request.url, 'http://any')
  next.searchParams.set('marker', marker)
  return `/v2/images?${next.searchParams.toString()}`
}

// ---------------------------------------------------------------- filters, order, pages

type Shown = Readonly<Record<string, unknown>> & { readonly id: string }

/** Not about the image, or with a meaning that every image meets. */
const IGNORED = new Set([
  'limit',
  'marker',
  'sort',
  'sort_key',
  'sort_dir',
  'enterprise_project_id',
  'size_min',
  'size_max',
  'tag',
])

function select<Row extends Shown>(
  objects: readonly Row[],
  request: Pick<FastifyRequest, 'query'>,
): { readonly page: readonly Row[]; readonly more: boolean } {
  const query = request.query as Query
  const rows = ordered(
    objects.filter((object) => passes(object, query)),
    query,
  )
  const found = pageOf(rows, query)
  if (found === null) throw refuse(400, 'limit: a whole number from 0 on.')
  return found
}

/** Members that are text or numbers, without regard to case; `in:a,b` lets either pass. No image has a tag. */
function passes(object: Shown, query: Query): boolean {
  if (valuesOf(query, 'tag').length > 0) return false
  // Images of whole servers: there are none.
  if (valueOf(query, '__whole_image') === 'true') return false
  return Object.keys(query).every((name) => {
    const wanted = valuesOf(query, name).flatMap((text) =>
      text.startsWith('in:') ? text.slice(3).split(',') : [text],
    )
    const value = object[name]
    if (IGNORED.has(name) || wanted.length === 0) return true
    if (typeof value !== 'string' && typeof value !== 'number') return true
    return wanted.some((text) => text.toLowerCase() === String(value).toLowerCase())
  })
}

const SORT_KEYS = ['name', 'status', 'id', 'size', 'created_at', 'updated_at']

/** `sort=name:asc,created_at` or `sort_key` and `sort_dir`; newest first otherwise. */
function ordered<Row extends Shown>(rows: readonly Row[], query: Query): readonly Row[] {
  const sort = valueOf(query, 'sort')
  const keys =
    sort === undefined
      ? [[valueOf(query, 'sort_key') ?? 'created_at', valueOf(query, 'sort_dir') ?? 'desc']]
      : sort.split(',').map((part) => part.trim().split(':'))
  const orders = keys.map(([key = '', direction = 'desc']) => {
    if (!SORT_KEYS.includes(key)) throw refuse(400, `sort_key: one of ${SORT_KEYS.join(', ')}.`)
    return { key, sign: direction.toLowerCase() === 'asc' ? 1 : -1 }
  })
  return rows.toSorted((a, b) => {
    for (const { key, sign } of orders) {
      const [left, right] = [a[key] as string | number, b[key] as string | number]
      if (left !== right) return left < right ? -sign : sign
    }
    return a.id < b.id ? -1 : 1
  })
}
