// SPDX-License-Identifier: Apache-2.0

import { isV4, parseIp } from '#base'
import { type Call, CniError, codes } from '#cni'
import {
  type Aspect,
  argsLayer,
  type Layer,
  operatorsLayer,
  type Pod,
  podOf,
  requestLayers,
  type Wishes,
} from './choice-layers.ts'
import { checkAllowed, type Policy } from './choice-policy.ts'

/**
 * What one attachment gets: the operator's configuration, and what the pod chose where it may. Names are as they were
 * written; nothing has been looked up. A list is in order of preference, and empty where nobody said anything.
 */
export type Choice = {
  readonly networks: readonly string[]
  readonly subnets: readonly string[]
  /** At most one per IP version, in the form of `formatIp`. The other version's comes from the pool. */
  readonly addresses: readonly string[]
  /** Lower case, with colons. */
  readonly mac: string | undefined
  /** An existing port, by id or name. */
  readonly port: string | undefined
  /** Undefined: what Neutron gives by itself. Empty: none. */
  readonly securityGroups: readonly string[] | undefined
  /** Undefined: what the network has. */
  readonly portSecurity: boolean | undefined
  /** What the pod chose itself, each with the key that said so. What is missing is the operator's. */
  readonly chosen: Readonly<Partial<Record<Aspect, string>>>
  /** True if the operator allows this very port by name, so that it may be on any network. */
  readonly portAnywhere: boolean
}

/** What `choose` reads of a configuration. */
export type ChoiceConfig = {
  readonly neutronConf: Policy & {
    readonly networks: readonly string[]
    readonly subnets: readonly string[]
    readonly securityGroups: readonly string[] | undefined
    readonly portSecurity: boolean | undefined
  }
}

/**
 * Decides what an attachment gets. Of several that name the same thing the most specific stands, whole: the operator's
 * configuration, `more`, CNI_ARGS, `args.cni`, `runtimeConfig`, in this order, which is that of the other plugins
 * (docs/reference/tcnp-ipam-choice.md says why).
 *
 * @param more layers of others, between the configuration and CNI_ARGS: what a pod's annotation says, as `podLayer` reads it.
 * @throws {CniError} 106 where the pod chose what it may not, 4 and 7 where a wish cannot be read or contradicts another
 */
export function choose(
  config: ChoiceConfig,
  call: Pick<Call, 'args' | 'config' | 'containerId' | 'ifName'>,
  more: readonly Layer[] = [],
): Choice {
  const { neutronConf } = config
  const layers = [...more, argsLayer(call.args), ...requestLayers(call.config)].filter(
    ({ wishes }) => Object.keys(wishes).length > 0,
  )
  let wishes = operatorsLayer(neutronConf)
  if (layers.length === 0) return choiceOf(wishes, {}, false)
  const pod = podOf(call)
  const chosen: Partial<Record<Aspect, string>> = {}
  for (const layer of layers) {
    // Whatever will stand in the end: a wish that is not allowed is told, not passed over.
    checkAllowed(layer, neutronConf, call, pod)
    for (const aspect of Object.keys(layer.wishes) as Aspect[]) chosen[aspect] = layer.keys[aspect]
    wishes = { ...wishes, ...layer.wishes }
  }
  const isNamed = wishes.port !== undefined && isNamedPort(wishes.port, neutronConf, pod)
  const choice = choiceOf(wishes, chosen, isNamed)
  checkTogether(wishes, choice, call, pod)
  return choice
}

const choiceOf = (wishes: Wishes, chosen: Choice['chosen'], portAnywhere: boolean): Choice => ({
  networks: wishes.networks ?? [],
  subnets: wishes.subnets ?? [],
  addresses: [...new Set(wishes.addresses ?? [])],
  mac: wishes.mac,
  port: wishes.port,
  ...filtersOf(wishes),
  chosen,
  portAnywhere,
})

/** A port that exists is taken as it is; and Neutron refuses groups where nothing filters. */
function filtersOf({ port, portSecurity, securityGroups }: Wishes): Pick<Choice, 'portSecurity' | 'securityGroups'> {
  if (port !== undefined) return { portSecurity: undefined, securityGroups: undefined }
  return { portSecurity, securityGroups: portSecurity === false ? [] : securityGroups }
}

const isNamedPort = (port: string, { allow, allowIn }: Policy, { namespace }: Pod) =>
  [...allow, ...(allowIn.get(namespace ?? '') ?? [])].includes(`port:${port}`)

/** True where an attachment cannot be served from what was made ahead for all, nor go back to it. */
export const isSpecial = ({ addresses, mac, port }: Pick<Choice, 'addresses' | 'mac' | 'port'>): boolean =>
  addresses.length > 0 || mac !== undefined || port !== undefined

/** What cannot be had together. */
function checkTogether(
  wanted: Wishes,
  { addresses, chosen }: Choice,
  call: Pick<Call, 'containerId' | 'ifName'>,
  pod: Pod,
): void {
  const refuse = (reason: string, details: string) => {
    const whom = `interface ${call.ifName} of container ${call.containerId}${pod.text}`
    throw new CniError(codes.invalidConfig, `Cannot give ${whom} what it chose: ${reason}`, { details })
  }
  for (const version of [4, 6]) {
    const several = addresses.filter(each => isV4(parseIp(each)) === (version === 4))
    if (several.length > 1)
      refuse(`"${chosen.addresses}" names ${several.join(' and ')}`, `one IPv${version} address per attachment`)
  }
  if (wanted.port !== undefined)
    for (const aspect of ['networks', 'subnets', 'addresses', 'mac', 'securityGroups', 'portSecurity'] as const)
      if (chosen[aspect] !== undefined)
        refuse(
          `"${chosen.port}" names a port, and "${chosen[aspect]}" what it shall have`,
          'a port that exists is taken as it is',
        )
  if (wanted.portSecurity === false && chosen.securityGroups !== undefined && wanted.securityGroups?.length !== 0)
    refuse(
      `"${chosen.securityGroups}" names security groups, and its port security is off`,
      chosen.portSecurity === undefined
        ? '"neutronConf.portSecurity" is false: no security group holds there'
        : `"${chosen.portSecurity}" says so: leave out one of them`,
    )
}
