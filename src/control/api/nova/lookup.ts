import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import type { ServerRequestRefusal } from '#control/operations/definitions/servers/server-requests.ts'
import { findServer } from '#control/resources/servers.ts'
import { type ServerView, viewServers } from '#control/resources/server-views.ts'
import { REFUSALS } from '../compute/refusals.ts'
import type { ComputeServices } from '../compute/services.ts'
import { originOf, projectOf } from '../http/request.ts'
import type { Refusal } from '../http/refusal.ts'
import type { LinkBase } from './codec.ts'
import { notFound, refuse } from './errors.ts'

/** What the handlers of this dialect share: paths, look-ups by id, links, refusals. */
export const ServerPath = Type.Object({ project_id: Type.String(), server_id: Type.String() })

export const linkBase = (request: FastifyRequest, services: ComputeServices): LinkBase => ({
  origin: originOf(request, services),
  project: projectOf(request),
  shared: new Map(),
})

/** Throws 404, also for a name in the place of the id. */
export async function serverView(
  services: ComputeServices,
  project: string,
  id: string,
): Promise<ServerView> {
  const { db } = services.store
  const row = await findServer(db, project, id)
  if (row === undefined) throw notFound('There is no such server.')
  const [view] = await viewServers(db, project, [row])
  if (view === undefined) throw notFound('There is no such server.')
  return view
}

export function refusalOf(refusal: ServerRequestRefusal): Refusal {
  const [status, message] = REFUSALS[refusal]
  return refuse(status, message)
}
