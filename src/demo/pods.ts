// SPDX-License-Identifier: Apache-2.0

import { join } from 'node:path'
import { deadlineIn, formatIp, parsePrefix } from '#base'
import {
  type Attachment,
  delNetworkList,
  findNetwork,
  findPlugin,
  type NetworkList,
  readResult,
  requestConfig,
  requireIps,
  type Version,
  writeCache,
} from '#cni'
import { containerIdOf } from '#cnitool'
import { agentPaths } from './agents.ts'
import { NETWORK } from './configuration.ts'
import type { Place, Pod } from './state.ts'
import type { Station } from './station.ts'

const CALL_MS = 120_000

/** A pod on the network. `ms`: from the exec of the plugin to its exit. */
export type Attached = { readonly pod: Pod; readonly address: string; readonly ms: number }

/** The interface of every pod. */
const IF_NAME = 'eth0'

// As cnitool calls it, so that a user can go on by hand.
const attachmentOf = ({ netns }: Pod): Attachment => ({
  containerId: containerIdOf(netns),
  ifName: IF_NAME,
  netns,
  args: [],
  capabilityArgs: {},
})

const cacheOf = (place: Place) => place.file('cache')
const networkOf = async (place: Place): Promise<NetworkList> => (await findNetwork(place.file('net.d'), NETWORK)).list

/** The environment with which a runtime, or a user by hand, calls the plugins of a pod's machine. */
const callEnvironment = (place: Place, { machine }: Pod): Record<string, string> => {
  const { cniBin, settings } = agentPaths(place, machine)
  return { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', CNI_PATH: cniBin, MOORING_CONFIG: settings }
}

/**
 * ADD as libcni does it for a list of one plugin, timed. The plugin is executed on the pod's machine.
 * @throws {Error} with the plugin's own error
 */
export async function attach(place: Place, pod: Pod, machine: Station): Promise<Attached> {
  const list = await networkOf(place)
  const plugin = list.plugins[0]!
  const attachment = attachmentOf(pod)
  const { containerId, ifName, netns } = attachment
  const environment = callEnvironment(place, pod)
  const file = await findPlugin(plugin.type, [environment['CNI_PATH']!])
  const call = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: containerId, CNI_IFNAME: ifName, CNI_NETNS: netns, CNI_ARGS: '' }
  const { exitCode, stdout, stderr, ms } = await machine.do('run', {
    file,
    env: { ...environment, ...call },
    stdin: requestConfig(list, plugin, {}),
    timeoutMs: CALL_MS,
  })
  if (exitCode !== 0)
    throw new Error(`Cannot attach ${pod.name} on ${pod.machine}: ${inOneLine(stdout)} ${stderr}`.trim())
  const result = readResult(new TextEncoder().encode(stdout), list.cniVersion, plugin.type)
  await writeCache(cacheOf(place), list.name, attachment, list.bytes, result, list.cniVersion as Version)
  const { address } = requireIps(result)[0]!
  return { pod, address: formatIp(parsePrefix(address).ip), ms }
}

/** DEL. @throws {CniError} */
export async function detach(place: Place, pod: Pod, signal: AbortSignal): Promise<void> {
  await delNetworkList(await networkOf(place), attachmentOf(pod), {
    path: [callEnvironment(place, pod)['CNI_PATH']!],
    env: callEnvironment(place, pod),
    cacheDirectory: cacheOf(place),
    deadline: deadlineIn(CALL_MS),
    signal,
  })
}

/** The commands with which a user asks and ends one pod by hand. */
export function byHand(place: Place, pod: Pod, launcher: string): string {
  const { CNI_PATH, MOORING_CONFIG } = callEnvironment(place, pod)
  const variables = `MOORING_CONFIG=${MOORING_CONFIG} CNI_PATH=${CNI_PATH} NETCONFPATH=${join(place.directory, 'net.d')}`
  return `${variables} ${launcher} cni del ${NETWORK} ${pod.netns} --cache-dir ${cacheOf(place)}`
}

const inOneLine = (text: string) => text.replace(/\s+/g, ' ').trim()
