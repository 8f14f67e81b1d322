import Type from 'typebox'
import { findServer } from '#control/resources/servers.ts'
import { type ServerView, viewServers } from '#control/resources/server-views.ts'
import type { ComputeServices } from '../compute/services.ts'
import { refuse } from './errors.ts'

export const ServerPath = Type.Object({ project_id: Type.String(), server_id: Type.String() })

/** Throws 404, also for a name in the place of the id. */
export async function serverView(
  services: ComputeServices,
  project: string,
  id: string,
): Promise<ServerView> {
  const { db } = services.store
  const row = await findServer(db, project, id)
  const [view] = row === undefined ? [] : await viewServers(db, project, [row])
  if (view === undefined) throw refuse('Ecs.0114')
  return view
}
