// SPDX-License-Identifier: Apache-2.0

import type { JsonObject } from '#cni'
import { type CloudSession, loadCloud, openCloud } from '#openstack'
import { openstackConfOf } from './configuration.ts'
import type { Place, State } from './state.ts'

/** The cloud of a demo: logged in to, and in the words of a configuration. */
export type DemoCloud = AsyncDisposable & {
  readonly title: string
  readonly session: CloudSession
  /** `openstackConf` as the seeds have it, or `cloud` for one of clouds.yaml. */
  readonly access: JsonObject
  /** What agents need to find the same cloud. */
  readonly env: NodeJS.ProcessEnv
}

/** The member's cloud in the simulator's clouds.yaml. */
const SIMULATED = 'mooring'
export const simulatorClouds = (place: Place) => place.file('simulator', 'clouds.yaml')

/** Reads the credentials; nothing is sent yet. @throws {CloudConfigError} */
export async function openDemoCloud(state: State): Promise<DemoCloud> {
  const { cloud: name, cloudsFile } = state
  const env = { ...process.env }
  if (cloudsFile !== undefined) env['OS_CLIENT_CONFIG_FILE'] = cloudsFile
  const cloud = await loadCloud(name ?? SIMULATED, { env })
  const session = openCloud(cloud)
  return {
    title: name === undefined ? 'the simulated OpenStack' : `cloud "${name}" (${cloud.authUrl})`,
    session,
    access: name === undefined ? { openstackConf: openstackConfOf(cloud) } : { cloud: name },
    env,
    [Symbol.asyncDispose]: () => session.close(),
  }
}
