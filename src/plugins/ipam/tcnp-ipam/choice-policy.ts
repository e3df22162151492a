// SPDX-License-Identifier: Apache-2.0

import { type Call, CniError, checked, codes, string } from '#cni'
import type { Aspect, Layer, Pod, Wishes } from './choice-layers.ts'

/** What pods may choose: everybody's, and more by Kubernetes namespace. Nothing by default. */
export type Policy = {
  readonly networks: readonly string[]
  readonly subnets: readonly string[]
  readonly allow: readonly string[]
  readonly allowIn: ReadonlyMap<string, readonly string[]>
}

const WORDS = ['network', 'subnet', 'address', 'mac', 'port', 'securityGroup', 'portSecurity'] as const
type Word = (typeof WORDS)[number]

const wordOf: Readonly<Record<Aspect, Word>> = {
  networks: 'network',
  subnets: 'subnet',
  addresses: 'address',
  mac: 'mac',
  port: 'port',
  securityGroups: 'securityGroup',
  portSecurity: 'portSecurity',
}

const WITH_VALUE: readonly Word[] = ['network', 'subnet', 'port', 'securityGroup']

/** One permission: a word, or `word:VALUE`. There is none that stands for several: what is dangerous has to be named. */
export const permission = checked(string, text => {
  const [word, value] = split(text)
  if (!WORDS.some(each => each === word) || value === '')
    return `is "${text}", want one of ${WORDS.map(each => `"${each}"`).join(', ')}, or "network:NAME" and the like`
  if (value !== undefined && !WITH_VALUE.some(each => each === word))
    return `is "${text}", want "${word}": it takes no value`
  return undefined
})

function split(text: string): readonly [word: string, value: string | undefined] {
  const colon = text.indexOf(':')
  return colon === -1 ? [text, undefined] : [text.slice(0, colon), text.slice(colon + 1)]
}

/** Refuses what a source of the pod's chooses and may not. @throws {CniError} 106 with who asked, for what, and what would allow it */
export function checkAllowed(
  { wishes, keys }: Layer,
  policy: Policy,
  { containerId, ifName }: Pick<Call, 'containerId' | 'ifName'>,
  pod: Pod,
): void {
  const allowed = new Set([...policy.allow, ...(policy.allowIn.get(pod.namespace ?? '') ?? [])])
  for (const [aspect, wish] of Object.entries(wishes) as [Aspect, Wishes[Aspect]][]) {
    const word = wordOf[aspect]
    const values = [wish].flat().map(String)
    // To choose no group at all is a choice, too.
    const needed = values.length === 0 ? [word] : values.flatMap(value => neededFor(word, value, policy, allowed))
    const denied = needed.find(each => !allowed.has(each))
    if (denied === undefined) continue
    const text = values.length === 0 ? 'none' : values.join(', ')
    throw new CniError(
      codes.choiceDenied,
      `Cannot give interface ${ifName} of container ${containerId}${pod.text} ${nouns[word]} ${text}: ` +
        `"${keys[aspect]}" asks for it, and ${nobody(pod)} may choose it`,
      { details: remedy(denied, pod) },
    )
  }
}

/** The permission that a value needs and does not have by name. */
function neededFor(word: Word, value: string, policy: Policy, allowed: ReadonlySet<string>): string[] {
  const named = `${word}:${value}`
  if (allowed.has(named)) return []
  // Others than the operator's networks have to be named, each: so many rights go with one.
  if (word === 'network' && !policy.networks.includes(value)) return [named]
  if (word === 'subnet' && policy.subnets.length > 0 && !policy.subnets.includes(value)) return [named]
  return [word]
}

const nouns: Readonly<Record<Word, string>> = {
  network: 'network',
  subnet: 'subnet',
  address: 'address',
  mac: 'MAC',
  port: 'port',
  securityGroup: 'security group',
  portSecurity: 'port security',
}

const nobody = ({ namespace }: Pod) => (namespace === undefined ? 'no pod' : `no pod of namespace ${namespace}`)

function remedy(permission: string, { namespace }: Pod): string {
  const everywhere = `"neutronConf": {"allow": ["${permission}"]} allows it to every pod`
  if (namespace === undefined) return everywhere
  return `"neutronConf": {"allowIn": {"${namespace}": ["${permission}"]}} allows it to the pods of this namespace; ${everywhere}`
}
