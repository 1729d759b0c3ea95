# SPDX-License-Identifier: Apache-2.0
*** Settings ***
Suite Setup         Setup
Suite Teardown      Teardown
Test Setup          Reset Emulation
Test Teardown       Run Keywords    Test Teardown    AND    Forget Device
Resource            ${RENODEKEYWORDS}
Resource            ${CURDIR}/monitor.resource


*** Test Cases ***
HW-T1 The Monitor Serves Before The Payload Runs
    FOR    ${try}    IN RANGE    5
        Make A Device
        Switch On
        Wait For Line On Uart    qsafp monitor: ${BOARD}    pauseEmulation=true
        ${started}=    Told By The Payload    started
        ${late}=    Run Keyword And Return Status    Wait For Line On Uart    serving    timeout=0    pauseEmulation=true
        IF    not ${late}    BREAK
        Reset Emulation    # it stood still only behind both: a busy host
    END
    Should Not Be True    ${late}    no try stood still before it serves
    Should Be Equal As Integers    ${started}    0
    Wait Until It Serves
    Run For    0.3
    ${started}=    Told By The Payload    started
    Should Not Be Equal As Integers    ${started}    0
    Gate Is Closed

HW-T2 A Bad Signature Starts Nothing
    [Tags]    stage
    Make A Device
    Spoil The Image
    Switch On
    Wait For Line On Uart    monitor slot 0: ED25519    pauseEmulation=true
    Wait For Line On Uart    halted    pauseEmulation=true
    Assert LED State    true    testerId=${FAILSAFE}
    Assert And Hold LED State    false    timeoutAssert=0    timeoutHold=2    testerId=${VALID}    pauseEmulation=true
    ${started}=    Told By The Payload    started
    Should Be Equal As Integers    ${started}    0

HW-T3 The Payload Cannot Write The Monitor's Memory
    [Tags]    isolation
    Start A Device    attack=${ATTACK_MEMORY}
    Obtain Lease
    Gate Is Open
    Run For    3
    ${finished}=    Told By The Payload    finished
    Should Not Be Equal As Integers    ${finished}    0    the attack did not come to its end
    ${moved}=    Told By The Payload    moved
    ${leaked}=    Told By The Payload    leaked
    Should Be Equal As Integers    ${moved}    0    what it wrote was there
    Should Be Equal As Integers    ${leaked}    0    it read what it may not
    Status Is    phase    ACTIVE
