import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { type Flavor, FLAVORS, findFlavor } from '#domain/flavor.ts'
import type { ComputeServices } from '../compute/services.ts'
import { one } from '../compute/words.ts'
import type { Api } from '../http/dialect.ts'
import { originOf } from '../http/request.ts'
import { EXTRA_SPECS, flavorObject, flavorRef, type LinkBase } from './codec.ts'
import { badRequest, notFound } from './errors.ts'
import { linkBase } from './lookup.ts'

/** Flavors: a fixed list, in which the id of each is its name. */
const FlavorPath = Type.Object({ project_id: Type.String(), flavor_id: Type.String() })

export function flavorRoutes(app: Api, services: ComputeServices): void {
  const base = '/v2.1/:project_id/flavors'

  const list =
    (show: (flavor: Flavor, links: LinkBase) => object) => async (request: FastifyRequest) => {
      const query = request.query as Readonly<Record<string, unknown>>
      const limit = wholeNumber(query, 'limit') || FLAVORS.length
      const memory = wholeNumber(query, 'minRam')
      const marker = one(query, 'marker')
      const at = marker === undefined ? -1 : FLAVORS.findIndex(({ name }) => name === marker)
      if (marker !== undefined && at < 0) throw badRequest(`marker: there is no flavor ${marker}.`)
      // Every flavor is public, and its disks are volumes of their own.
      const nothing = isFalse(one(query, 'is_public')) || wholeNumber(query, 'minDisk') > 0
      const rest = nothing ? [] : FLAVORS.slice(at + 1).filter(({ memoryMb }) => memoryMb >= memory)
      const page = rest.slice(0, limit)
      const links = linkBase(request, services)
      const last = page.at(-1)
      const next = new URL(request.url, originOf(request, services))
      if (last !== undefined) next.searchParams.set('marker', last.name)
      return {
        flavors: page.map((flavor) => show(flavor, links)),
        ...(rest.length > limit ? { flavors_links: [{ rel: 'next', href: next.toString() }] } : {}),
      }
    }
  app.get(base, list(flavorRef))
  app.get(`${base}/detail`, list(flavorObject))

  app.get(`${base}/:flavor_id`, { schema: { params: FlavorPath } }, async (request) => ({
    flavor: flavorObject(known(request.params.flavor_id), linkBase(request, services)),
  }))
  app.get(
    `${base}/:flavor_id/os-extra_specs`,
    { schema: { params: FlavorPath } },
    async (request) => {
      known(request.params.flavor_id)
      return { extra_specs: EXTRA_SPECS }
    },
  )
}

function known(name: string): Flavor {
  const flavor = findFlavor(name)
  if (flavor === undefined) throw notFound(`There is no flavor ${name}.`)
  return flavor
}

const isFalse = (text: string | undefined): boolean =>
  text !== undefined && /^(false|0|f|no|off|n)$/i.test(text)

function wholeNumber(query: Readonly<Record<string, unknown>>, name: string): number {
  const text = one(query, name) ?? '0'
  if (!/^\d{1,9}$/.test(text)) throw badRequest(`${name}: must be a whole number.`)
  return Number(text)
}
