# SPDX-License-Identifier: Apache-2.0
*** Settings ***
Suite Setup         Setup
Suite Teardown      Teardown
Test Setup          Reset Emulation
Test Teardown       Run Keywords    Test Teardown    AND    Forget Device
Resource            ${RENODEKEYWORDS}
Resource            ${CURDIR}/monitor.resource


*** Test Cases ***
HW-T10 A Query Blocks Nothing
    Start A Device
    Obtain Lease
    Gate Is Open
    Assert LED State    true    testerId=${QUERY}
    Ask
    Assert LED State    false    testerId=${QUERY}
    Payload Works
    Run For    2
    Payload Works
    Gate Is Open
    Obtain Lease
    Status Is    renewals    1

HW-T11 A Wrong Signature Is No Vote
    Start A Device
    Must Not Count    BAD_SIGNATURE    spoiled=${True}
    Run For    0.3
    Gate Is Closed
    ${batches}=    Told By The Payload    batches
    Should Be Equal As Integers    ${batches}    0
    Obtain Lease    signers=0124
    Gate Is Open

HW-T12 Three Of Six Are Too Few
    Start A Device
    Must Not Count    TOO_FEW    signers=012
    Run For    0.3
    Gate Is Closed
    Obtain Lease
    Gate Is Open
    Payload Works
