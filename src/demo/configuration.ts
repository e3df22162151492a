// SPDX-License-Identifier: Apache-2.0

import { mkdirSync, writeFileSync } from 'node:fs'
import type { JsonObject } from '#cni'
import type { Cloud } from '#openstack'
import type { Place } from './state.ts'

/** The network's name in the configuration. */
export const NETWORK = 'cni0'

/** Who the simulated cloud lets in, in the words of a configuration. */
export function openstackConfOf({ authUrl, credentials }: Cloud): JsonObject {
  const scope = credentials.kind === 'password' ? credentials.scope : undefined
  if (credentials.kind !== 'password' || !('name' in credentials.user) || scope === undefined || !('project' in scope))
    throw new Error(`Cannot write a configuration for ${authUrl}: it needs user name, password and project`)
  const { user, password } = credentials
  const { project } = scope
  return {
    username: user.name,
    password: password.reveal(),
    project: 'name' in project ? project.name : project.id,
    domain: 'id' in user.domain ? user.domain.id : user.domain.name,
    authUrl,
  }
}

/** The configuration of `veth-route` with `tcnp-ipam`. `access` is `openstackConf`, or names a cloud. */
export const conflist = (networkId: string, access: JsonObject): JsonObject => ({
  name: NETWORK,
  cniVersion: '0.3.1',
  plugins: [
    {
      type: 'veth-route',
      ipam: {
        type: 'tcnp-ipam',
        ...access,
        neutronConf: { networks: [networkId], mode: 'mix' },
        routes: [{ dst: '0.0.0.0/0' }],
      },
    },
  ],
})

/** The directory that NETCONFPATH names, with the configuration in it; for its owner's eyes, because it may hold a password. */
export function writeConflist(place: Place, configuration: JsonObject): string {
  const directory = place.file('net.d')
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  writeFileSync(place.file('net.d', '10-cni0.conflist'), `${JSON.stringify(configuration, undefined, 2)}\n`, {
    mode: 0o600,
  })
  return directory
}
